//! Templates in, Corefiles out.

use std::cell::RefCell;
use std::collections::HashMap;

use super::*;
use crate::corefile::{LoadOptions, SystemSource, load};

/// The template that NodeLocal DNSCache is published with, the cluster's domain filled in.
const BASE: &str = "\
cluster.local:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    reload
    loop
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__CLUSTER__DNS__ {
        force_tcp
    }
    prometheus __PROMETHEUS__ENDPOINT__
    health 169.254.20.10:8080
}
.:53 {
    errors
    cache 30
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__UPSTREAM__SERVERS__ {
        force_tcp
    }
    prometheus __PROMETHEUS__ENDPOINT__
}
";

/// Files in a directory of the test, variables of its choice.
struct World {
    directory: PathBuf,
    variables: RefCell<HashMap<String, String>>,
}

impl World {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("nodens-template-{name}-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("kube-dns")).expect("a directory");
        let world = World { directory, variables: RefCell::default() };
        world.set("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.0.99");
        world.write("Corefile.base", BASE);
        world
    }

    fn set(&self, name: &str, value: &str) {
        self.variables.borrow_mut().insert(name.to_owned(), value.to_owned());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).expect("a file");
    }

    fn template(&self, local: &[&str]) -> Template {
        Template::of(&RunOptions {
            basecorefile: self.directory.join("Corefile.base"),
            corefile: self.directory.join("Corefile"),
            kubednscm: Some(self.directory.join("kube-dns")),
            upstreamsvc: "kube-dns-upstream".to_owned(),
            localip: local.iter().map(|ip| ip.parse().expect("an address")).collect(),
            ..RunOptions::default()
        })
        .expect("a template")
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.directory.join("Corefile")).expect("it was written")
    }

    /// The result is a Corefile.
    fn check(&self) {
        let path = self.directory.join("Corefile");
        let text = self.output();
        assert!(!text.contains("PILLAR") && !text.contains("PROMETHEUS__"), "{text}");
        if let Err(complaints) = load(&path.to_string_lossy(), self, &LoadOptions::default()) {
            panic!("{complaints:?}\n{text}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Source for World {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        if path == RESOLV_CONF { Ok(b"nameserver 192.0.2.53\n".to_vec()) } else { SystemSource.read(path) }
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        SystemSource.list(directory)
    }

    fn env(&self, name: &str) -> Option<String> {
        self.variables.borrow().get(name).cloned()
    }
}

const WRITTEN: FilledIn = FilledIn { changed: true, complaint: None };
const UNCHANGED: FilledIn = FilledIn { changed: false, complaint: None };

#[test]
fn n01_all_variables_are_replaced() {
    let world = World::new("n01");
    let mut template = world.template(&["169.254.20.10", "10.0.0.10"]);
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
    world.check();
    let text = world.output();
    assert_eq!(text.matches("    bind 169.254.20.10 10.0.0.10\n").count(), 2, "{text}");
    assert!(text.contains("forward . 10.96.0.99 {") && text.contains("prometheus :9253\n"), "{text}");
    assert!(text.contains("forward . /etc/resolv.conf {\n        force_tcp\n"), "{text}");
    let mode = std::fs::metadata(world.directory.join("Corefile")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert!(!world.directory.join("Corefile.new").exists());
}

#[test]
fn n02_only_a_change_is_written() {
    let world = World::new("n02");
    let mut template = world.template(&["169.254.20.10"]);
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
    assert_eq!(template.fill_in(&world), Ok(UNCHANGED));
    world.write("Corefile.base", &BASE.replace("cache 30", "cache 60"));
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
    assert!(world.output().contains("cache 60"));
    std::fs::remove_file(world.directory.join("Corefile")).expect("it is there");
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
}

#[test]
fn n03_the_config_map_brings_servers_over_udp_and_stub_domains() {
    let world = World::new("n03");
    let mut template = world.template(&["169.254.20.10"]);
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
    world.write("kube-dns/upstreamNameservers", r#"["192.0.2.1", "192.0.2.2:5353"]"#);
    world.write(
        "kube-dns/stubDomains",
        r#"{"z.example": ["192.0.2.4"], "acme.local": ["192.0.2.3", "192.0.2.5:54"]}"#,
    );
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
    world.check();
    let text = world.output();
    assert!(text.contains("forward . 192.0.2.1 192.0.2.2:5353\n    prometheus"), "{text}");
    assert!(
        text.contains("forward . 10.96.0.99 {\n        force_tcp\n"),
        "the cluster's DNS as before\n{text}"
    );
    let stub = |domain: &str, servers: &str| {
        format!(
            "{domain}:53 {{\n    errors\n    cache 30\n    bind 169.254.20.10\n    forward . {servers}\n}}\n"
        )
    };
    let stubs = stub("acme.local", "192.0.2.3 192.0.2.5:54") + &stub("z.example", "192.0.2.4");
    assert!(text.ends_with(&stubs), "{text}");

    // What cannot be read changes nothing, and cannot smuggle anything in.
    for broken in
        ["{", "[]", r#"{"a.example": ["x"]}"#, r#"{"a.example": []}"#, r#"{"a {\n}\n": ["192.0.2.1"]}"#]
    {
        world.write("kube-dns/stubDomains", broken);
        let result = template.fill_in(&world).expect("the rest is good");
        assert!(
            !result.changed && result.complaint.expect("a complaint").contains("stubDomains"),
            "{broken}"
        );
    }
    world.write("kube-dns/stubDomains", " ");
    std::fs::remove_file(world.directory.join("kube-dns/upstreamNameservers")).expect("it is there");
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
    assert!(!world.output().contains("acme") && world.output().contains(RESOLV_CONF));
}

#[test]
fn n04_the_same_with_ipv6() {
    let world = World::new("n04");
    world.set("KUBE_DNS_UPSTREAM_SERVICE_HOST", "fd00::99");
    world.write("kube-dns/upstreamNameservers", r#"["2001:db8::1", "[2001:db8::2]:5353"]"#);
    world.write("kube-dns/stubDomains", r#"{"acme.local": ["[2001:db8::3]:54"]}"#);
    let mut template = world.template(&["fd00:ec2::10", "fd00::10"]);
    assert_eq!(template.fill_in(&world), Ok(WRITTEN));
    world.check();
    let text = world.output();
    for wanted in [
        "    bind fd00:ec2::10 fd00::10\n",
        "forward . fd00::99 {",
        "forward . 2001:db8::1 [2001:db8::2]:5353\n",
        "forward . [2001:db8::3]:54\n",
    ] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
}

#[test]
fn what_is_missing_is_said_in_one_line_and_nothing_is_written() {
    let world = World::new("missing");
    world.variables.borrow_mut().clear();
    let mut template = world.template(&["169.254.20.10"]);
    let line = template.fill_in(&world).expect_err("there is no Service");
    assert!(line.contains("KUBE_DNS_UPSTREAM_SERVICE_HOST") && line.contains("-upstreamsvc"), "{line}");
    world.set("KUBE_DNS_UPSTREAM_SERVICE_HOST", "None");
    assert!(template.fill_in(&world).expect_err("headless").contains("no IP address"));
    assert!(world.template(&[]).fill_in(&world).expect_err("no address").contains("-localip"));
    assert!(!world.directory.join("Corefile").exists());
    world.set("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.0.99");
    assert_eq!(template.fill_in(&world), Ok(WRITTEN), "tried again");
    std::fs::remove_file(world.directory.join("Corefile.base")).expect("it is there");
    assert!(template.fill_in(&world).expect_err("no template").contains("-basecorefile"));
}

#[test]
fn without_a_template_at_the_default_place_there_is_none() {
    let options = RunOptions::default();
    assert_eq!(Template::of(&options).is_some(), options.basecorefile.exists());
}
