//! Server blocks, their keys, snippets and imports.

use super::{Texts, messages};
use nodens_agent::corefile::{Corefile, LoadOptions, load};

/// `name:port` of every zone, block by block.
fn zones(corefile: &Corefile) -> Vec<Vec<String>> {
    let port = |port: Option<u16>| port.map_or_else(|| "-".to_owned(), |port| port.to_string());
    let key = |zone: &nodens_agent::corefile::config::ZoneKey| format!("{}:{}", zone.name, port(zone.port));
    corefile.blocks.iter().map(|block| block.zones.iter().map(key).collect()).collect()
}

#[test]
fn keys_are_zones_with_ports() {
    for (keys, expected) in [
        (".", vec![".:-"]),
        (".:53", vec![".:53"]),
        (":53", vec![".:53"]),
        ("dns://.:1053", vec![".:1053"]),
        ("Example.ORG", vec!["example.org.:-"]),
        ("a.org b.org:54", vec!["a.org.:-", "b.org.:54"]),
        ("a.org,b.org, c.org", vec!["a.org.:-", "b.org.:-", "c.org.:-"]),
        ("a.org,\n  b.org", vec!["a.org.:-", "b.org.:-"]),
        ("10.0.0.0/15:53", vec!["0.10.in-addr.arpa.:53", "1.10.in-addr.arpa.:53"]),
        ("192.168.0.0/16", vec!["168.192.in-addr.arpa.:-"]),
        ("2001:db8::/32", vec!["8.b.d.0.1.0.0.2.ip6.arpa.:-"]),
        ("2001:db8::/32:53", vec!["8.b.d.0.1.0.0.2.ip6.arpa.:53"]),
        ("cluster.local in-addr.arpa ip6.arpa", vec!["cluster.local.:-", "in-addr.arpa.:-", "ip6.arpa.:-"]),
    ] {
        let texts = Texts::corefile(format!("{keys} {{\nforward . 1.1.1.1\n}}"));
        assert_eq!(zones(&texts.good()), [expected], "{keys}");
    }
}

#[test]
fn keys_that_cannot_be_zones() {
    for (keys, because) in [
        (".:65536", "has the port `65536`"),
        (".:dns", "has the port `dns`"),
        (".:", "has the port ``"),
        ("a..b", "`a..b` has an empty label"),
        ("2001:db8::1", "is an address, not a zone"),
        ("[::1]:53", "is an address, not a zone"),
        ("10.0.0.0/33", "has the prefix length `33`"),
        ("tls://.", "serves something else than plain DNS"),
        ("gopher://.", "serves something else than plain DNS"),
        ("münchen.de", "holds `ü`"),
    ] {
        let errors = Texts::corefile(format!("{keys} {{\nforward . 1.1.1.1\n}}")).errors();
        assert!(errors.iter().any(|e| e.contains(because)), "{keys}: {errors:?}");
    }
}

#[test]
fn an_address_as_zone_is_taken_with_a_warning() {
    let (corefile, diagnostics) = Texts::corefile("127.0.0.1:53 {\nforward . 1.1.1.1\n}").examine();
    assert_eq!(zones(&corefile), [["127.0.0.1.:53"]]);
    assert_eq!(
        messages(&diagnostics, false),
        ["`127.0.0.1` is served as a zone of that name, not as an address"]
    );
}

#[test]
fn the_same_block_in_several_layouts() {
    for text in [
        ".:53 {\n  errors\n  forward . 1.1.1.1\n}",
        ".:53\n{\n  errors\n  forward . 1.1.1.1\n}\n",
        ".:53 { errors\n forward . 1.1.1.1 {\n }\n}\n",
        ".:53\nerrors\nforward . 1.1.1.1\n",
        "\u{FEFF}.:53 {\r\n\terrors # comment\r\n\tforward . \\\r\n\t\t1.1.1.1\r\n}\r\n",
        ".:53 {\n  \"errors\"\n  forward \".\" \"1.1.1.1\"\n}",
    ] {
        let corefile = Texts::corefile(text).good();
        let block = &corefile.blocks[0];
        assert_eq!(zones(&corefile), [[".:53"]], "{text}");
        assert!(block.errors.is_some() && block.forward[0].to[0].addr.to_string() == "1.1.1.1:53", "{text}");
    }
}

#[test]
fn spans_point_at_what_was_read() {
    let corefile = Texts::corefile("a.org,b.org {\n  cache\n  forward . 1.1.1.1\n}").good();
    let block = &corefile.blocks[0];
    assert_eq!(block.span.to_string(), "Corefile:1:1");
    assert_eq!(block.zones[1].span.to_string(), "Corefile:1:7");
    assert_eq!(block.cache.as_ref().unwrap().span.to_string(), "Corefile:2:3");
    assert_eq!((block.forward[0].span.line(), block.forward[0].span.column()), (3, 3));
}

#[test]
fn environment_variables_stand_for_their_values() {
    let texts = Texts::corefile("{$ZONE}:{%PORT%} {\nforward . {$UPSTREAM:9.9.9.9}:{$NOPORT:5353}\n}")
        .env("ZONE", "example.org")
        .env("PORT", "1053");
    let corefile = texts.good();
    assert_eq!(zones(&corefile), [["example.org.:1053"]]);
    assert_eq!(corefile.blocks[0].forward[0].to[0].addr.to_string(), "9.9.9.9:5353");
}

#[test]
fn snippets_are_replayed_with_arguments() {
    let text = "(common) {\n  errors\n  cache {args[0]}\n}\n(up) {\n forward . {args.0} {args[1]}:54\n}\n\
                a.org {\n  import common 30\n  import up 1.1.1.1 2.2.2.2\n}\nb.org {\n  import common 60\n  import up 3.3.3.3 4.4.4.4\n}\n";
    let corefile = Texts::corefile(text).good();
    let ttl: Vec<u32> = corefile.blocks.iter().map(|b| b.cache.as_ref().unwrap().success.ttl_max_s).collect();
    assert_eq!(ttl, [30, 60]);
    assert_eq!(corefile.blocks[1].forward[0].to[1].addr.to_string(), "4.4.4.4:54");
}

#[test]
fn snippets_may_hold_options_and_other_snippets() {
    let text = "(opts) {\n  max_fails 7\n}\n(up) { forward . 1.1.1.1 {\n  import opts\n  }\n}\n. {\n  import up\n}\n";
    assert_eq!(Texts::corefile(text).good().blocks[0].forward[0].max_fails, 7);
}

#[test]
fn a_mistake_in_a_snippet_is_reported_once() {
    let text = "(c) {\n cache 0\n forward . 1.1.1.1\n}\na {\n import c\n}\nb {\n import c\n}\n";
    assert_eq!(Texts::corefile(text).errors(), ["`0` is out of range"]);
}

#[test]
fn files_are_imported_relative_to_the_importing_one() {
    let texts = Texts::default()
        .file("/etc/coredns/Corefile", "import sub/one.conf\n. {\n  import common.inc\n}\n")
        .file("/etc/coredns/common.inc", "errors\nforward . 1.1.1.1\n")
        .file("/etc/coredns/sub/one.conf", "one.org {\n  import ../common.inc\n}\n");
    let corefile = load("/etc/coredns/Corefile", &texts, &LoadOptions::default()).unwrap();
    assert_eq!(zones(&corefile), [["one.org.:-"], [".:-"]]);
    assert!(corefile.blocks.iter().all(|block| block.errors.is_some()));
}

#[test]
fn wildcards_import_the_visible_files_in_order() {
    let texts =
        Texts::corefile("import custom/*.server\n. {\n  forward . 1.1.1.1\n  import custom/*.override\n}\n")
            .file("custom/b.server", "b.org {\n forward . 1.1.1.1\n}\n")
            .file("custom/a.server", "a.org {\n forward . 1.1.1.1\n}\n")
            .file("custom/.hidden.server", "{{{")
            .file("custom/a.txt", "{{{");
    let (corefile, diagnostics) = texts.examine();
    assert_eq!(messages(&diagnostics, true), [""; 0]);
    assert_eq!(zones(&corefile), [["a.org.:-"], ["b.org.:-"], [".:-"]]);
    assert_eq!(messages(&diagnostics, false), ["no file matches `custom/*.override`"]);
}

#[test]
fn broken_imports() {
    for (text, because) in [
        ("import\n", "`import` needs the name of a snippet or file"),
        ("import \"\"\n", "`import` of nothing"),
        ("import nothere\n", "`nothere` cannot be read: "),
        ("import a[bc]d\n", "`[…]` in an import pattern is not understood"),
        ("import Corefile\n", "`Corefile` imports itself"),
        ("import ./x/../Corefile\n", "`Corefile` imports itself"),
        ("(a) {\n import a\n}\n. {\n import a\n}\n", "`(a)` imports itself"),
        ("(a) {\n import b\n}\n(b) {\n import a\n}\n. {\n import b\n}\n", "`(b)` imports itself"),
        ("(a) {\n errors\n}\n(a) {\n errors\n}\n. {\n import a\n}\n", "the snippet `(a)` is defined twice"),
        ("(a) {\n errors\n", "this `{` is never closed"),
        ("(a) {\n cache {args[1]}\n}\n. {\n import a 1\n}\n", "`(a)` uses argument 1, but only 1 are given"),
    ] {
        let errors = Texts::corefile(text).errors();
        assert!(errors.iter().any(|e| e.contains(because)), "{text}: {errors:?}");
    }
}

#[test]
fn files_that_import_each_other_are_refused_with_the_chain() {
    let texts = Texts::corefile("import a\n").file("a", "import b\n").file("b", "import a\n");
    let (_, diagnostics) = texts.examine();
    let error = diagnostics.iter().find(|d| d.is_error()).unwrap();
    assert_eq!(
        error.to_string(),
        "b:1:8: error: `a` imports itself\n    import a\n           ^\nhelp: the chain is Corefile -> a -> b -> a"
    );
}

#[test]
fn snippets_cannot_unfold_without_end() {
    // Each imports the one before it eight times: 8^N copies of the first.
    let mut snippets = format!("(s0) {{\n errors{}\n}}\n", " x".repeat(100));
    for i in 1..30 {
        snippets.push_str(&format!("(s{i}) {{\n{}}}\n", format!(" import s{}\n", i - 1).repeat(8)));
    }
    let errors = |name: &str| Texts::corefile(format!("{snippets}. {{\n import {name}\n}}\n")).errors();
    assert_eq!(errors("s4"), ["the configuration has more than 200000 words"]);
    assert_eq!(errors("s20")[0], "imports nest deeper than 16");
    let empty = format!("(s0) {{\n}}\n{}", &snippets[snippets.find("(s1)").unwrap()..]);
    let errors = Texts::corefile(format!("{empty}. {{\n import s10\n}}\n")).errors();
    assert_eq!(errors, ["the configuration has more than 10000 imports"]);
}

#[test]
fn zones_that_two_blocks_serve() {
    let two = |a: &str, b: &str| {
        let text = format!("{a}\n forward . 1.1.1.1\n}}\n{b}\n forward . 1.1.1.1\n}}\n");
        Texts::corefile(text).errors()
    };
    for (a, b) in [
        ("a.org {", "b.org {"),
        ("a.org {", "x.a.org {"),
        ("a.org:53 {", "a.org:54 {"),
        ("a.org {\nbind 127.0.0.1", "a.org {\nbind 127.0.0.2"),
        ("a.org {\nbind eth0", "a.org {\nbind eth1"),
    ] {
        assert_eq!(two(a, b), [""; 0], "{a} {b}");
    }
    for (a, b, how) in [
        ("a.org {", "a.org {", "is already served, by"),
        ("a.org {", "A.org.:53 {", "is already served, by"),
        (". a.org {", "b.org a.org {", "is already served, by"),
        ("10.0.0.0/8 {", "10.in-addr.arpa {", "is already served, by"),
        ("a.org {\nbind 127.0.0.1", "a.org {\nbind 127.0.0.2 127.0.0.1", "is already served, by"),
        ("a.org {", "a.org {\nbind 127.0.0.1", "at an address that both listen on"),
        ("a.org {\nbind 127.0.0.1", "a.org {", "at an address that both listen on"),
        ("a.org {\nbind ::1", "a.org {\nbind 0:0:0:0:0:0:0:1", "is already served, by"),
    ] {
        let errors = two(a, b);
        assert_eq!(errors.len(), 1, "{a} {b}: {errors:?}");
        assert!(errors[0].contains(how), "{a} {b}: {errors:?}");
    }
    assert_eq!(
        Texts::corefile("a a {\nforward . 1.1.1.1\n}").errors(),
        ["`a.` on port 53 is already served, by the server block at Corefile:1:1"]
    );
}

#[test]
fn the_default_port_counts_for_overlaps() {
    let texts = Texts::corefile("a {\nforward . 1.1.1.1\n}\na:1053 {\nforward . 1.1.1.1\n}\n");
    assert!(load("Corefile", &texts, &LoadOptions { default_port: 53 }).is_ok());
    assert!(load("Corefile", &texts, &LoadOptions { default_port: 1053 }).is_err());
}
