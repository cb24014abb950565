//! A `dnsConfig` as lines of YAML, in the layout that `kubectl` prints.

use serde_json::Value;

use crate::decide::{DnsSettings, OptionEntry};

/// The lines, without the indentation of the spec around them.
pub fn dns_config_lines(dns: &DnsSettings<'_>) -> Vec<String> {
    let mut lines = vec!["dnsConfig:".to_owned(), "  nameservers:".to_owned()];
    lines.extend(dns.nameservers.iter().map(|address| format!("  - {}", scalar(&address.to_string()))));
    lines.push("  options:".to_owned());
    dns.options.iter().for_each(|option| option_lines(option, &mut lines));
    lines.push("  searches:".to_owned());
    lines.extend(dns.searches.iter().map(|search| format!("  - {}", scalar(search))));
    lines.extend(dns.others.iter().map(|(key, value)| format!("  {}: {}", scalar(key), value.get())));
    lines
}

fn option_lines(option: &OptionEntry<'_>, lines: &mut Vec<String>) {
    let (name, value) = match option {
        OptionEntry::Ours { name, value } => ((*name).to_owned(), Some(value.to_string())),
        OptionEntry::User(user) => match serde_json::from_str::<Value>(user.raw.get()) {
            // As people write it: a name, and perhaps a value.
            Ok(Value::Object(map)) if map.keys().all(|key| key == "name" || key == "value") => {
                let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
                (user.name.to_string(), text("value"))
            }
            _ => return lines.push(format!("  - {}", user.raw.get())),
        },
    };
    lines.push(format!("  - name: {}", scalar(&name)));
    lines.extend(value.map(|value| format!("    value: {}", quoted(&value))));
}

/// Plain where no reader of YAML, old or new, could take it for anything but this string.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"];
    let address = text.parse::<std::net::Ipv4Addr>().is_ok();
    let name = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        && !WORDS.contains(&text);
    if address || name { text.to_owned() } else { quoted(text) }
}

/// A JSON string is a YAML string too.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
