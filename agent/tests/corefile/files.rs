//! Whole files that people have: they are understood and taken.

use super::{Texts, messages};

const SINGLE_ZONE: &str = include_str!("fixtures/single-zone.corefile");
const FOUR_BLOCKS: &str = include_str!("fixtures/four-blocks.corefile");

#[test]
fn the_single_zone_file_is_taken() {
    let (_, diagnostics) = Texts::corefile(SINGLE_ZONE).examine();
    assert_eq!(messages(&diagnostics, true), [""; 0]);
    assert_eq!(messages(&diagnostics, false), [""; 0]);
    let corefile = Texts::corefile(SINGLE_ZONE).good();
    let [block] = corefile.blocks.as_slice() else { panic!("{corefile:?}") };
    assert_eq!((block.zones[0].name.as_str(), block.zones[0].port), (".", Some(53)));
    assert_eq!(
        block.bind[0].addresses(|_| None).unwrap(),
        ["169.254.20.10".parse::<std::net::IpAddr>().unwrap()]
    );
    let cache = block.cache.as_ref().unwrap();
    assert_eq!((cache.success.capacity, cache.success.ttl_max_s), (9984, 30));
    assert_eq!((cache.denial.capacity, cache.denial.ttl_max_s), (9984, 5));
    assert_eq!(block.forward[0].to[0].addr.to_string(), "172.23.0.20:53");
    assert_eq!(block.prometheus.as_ref().unwrap().addr.to_string(), ":9253");
    assert_eq!(block.health.as_ref().unwrap().addr.to_string(), "169.254.20.10:8081");
    assert!(block.errors.is_some() && block.loop_detection && !block.log.is_empty());
    assert!(block.forward[0].force_tcp && block.reload.is_some());
}

#[test]
fn the_four_block_file_is_taken() {
    let texts = Texts::corefile(FOUR_BLOCKS).file("/etc/resolv.conf", "nameserver 192.0.2.53\n");
    let corefile = texts.good();
    let zones: Vec<&str> = corefile.blocks.iter().map(|block| block.zones[0].name.as_str()).collect();
    assert_eq!(zones, ["cluster.local.", "in-addr.arpa.", "ip6.arpa.", "."]);
    let upstreams: Vec<String> =
        corefile.blocks.iter().map(|block| block.forward[0].to[0].addr.to_string()).collect();
    assert_eq!(upstreams, ["172.21.9.9:53", "172.21.9.9:53", "172.21.9.9:53", "192.0.2.53:53"]);
    assert!(corefile.blocks[0].health.is_some() && corefile.blocks[1].health.is_none());
}

#[test]
fn a_template_is_refused_for_its_variables_and_for_what_else_is_wrong() {
    let text = ". {\n bind __PILLAR__LOCAL__DNS__\n forward . __PILLAR__UPSTREAM__SERVERS__\n cahce 30\n}\n";
    assert_eq!(
        Texts::corefile(text).errors(),
        [
            "`__PILLAR__LOCAL__DNS__` is a template variable that nothing has replaced",
            "`__PILLAR__UPSTREAM__SERVERS__` is a template variable that nothing has replaced",
            "unknown plug-in `cahce`",
        ]
    );
}
