//! `loop`: an upstream that asks us is found out and not asked any more; the others are.

mod support;

use std::net::SocketAddr;

use nodens_testkit::{Action, Query, Received, UdpClient, Upstream, answers};

use support::{Agent, COREFILE, PATIENCE, eventually};

const SIGHUP: i32 = 1;

fn good() -> Upstream {
    Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")))
}

/// Asks `dns` whatever it is asked, and never answers: the first half of a circle.
fn circular(dns: SocketAddr) -> impl Fn(&Received) -> Vec<Action> + Send + Sync + 'static {
    move |query| {
        UdpClient::new().send(dns, &Query::new(&query.qname, "HINFO").bytes());
        vec![Action::Drop]
    }
}

fn corefile(upstreams: &[SocketAddr], options: &str) -> String {
    let upstreams: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
    COREFILE
        .replace(
            "{$UPSTREAM} {\n        health_check 100ms",
            &format!("{} {{\n{options}", upstreams.join(" ")),
        )
        .replace("    errors\n", "    errors\n    loop\n")
}

fn reload(agent: &Agent, text: &str, outcome: &str) -> String {
    agent.rewrite(text);
    let before = agent.process.line_count();
    agent.process.signal(SIGHUP);
    let line = agent.process.wait_for_line_after(before, outcome, PATIENCE);
    line.unwrap_or_else(|| panic!("waited for {outcome:?}\n{}", agent.process.dump()))
}

fn ask(agent: &Agent, name: &str) -> u16 {
    agent.udp(&Query::new(name, "A")).rcode
}

#[test]
fn m51_an_upstream_that_asks_us_is_not_asked_any_more_and_the_others_are() {
    let (upstream, looping) = (good(), good());
    let agent = Agent::before(upstream.addr());
    looping.set_handler(circular(agent.dns));
    let both = corefile(&[looping.addr(), upstream.addr()], "        policy sequential");
    let line = reload(&agent, &both, "plugin/loop: Loop (");
    assert!(line.starts_with("[ERROR]") && line.contains(&looping.addr().to_string()), "{line}");
    assert!(line.contains("for zone \".\"") && line.contains("Query: \"HINFO "), "{line}");
    eventually("it is asked no more", PATIENCE, || {
        let before = looping.count();
        let answered = (0..20).all(|n| ask(&agent, &format!("n{n}.{before}.example.")) == 0);
        (answered && looping.count() == before).then_some(())
    });

    // With none left it is as if there was no `forward`; the next good Corefile ends it.
    reload(&agent, &corefile(&[looping.addr()], ""), "plugin/loop: Loop (");
    eventually("refused", PATIENCE, || (ask(&agent, "other.example.") == 5).then_some(()));
    reload(&agent, &corefile(&[upstream.addr()], ""), "Reloading complete");
    assert_eq!(ask(&agent, "other.example."), 0);
}

#[test]
fn m45_m50_a_good_upstream_is_probed_over_its_transport_and_kept() {
    for options in ["", "        force_tcp"] {
        let upstream = good();
        let agent = Agent::before(upstream.addr());
        reload(&agent, &corefile(&[upstream.addr()], options), "Reloading complete");
        let is_probe = |query: &Received| query.qtype == 13;
        eventually("the probe arrives", PATIENCE, || (upstream.count_if(is_probe) > 0).then_some(()));
        let tcp = upstream
            .received()
            .iter()
            .filter(|query| is_probe(query))
            .all(|query| (query.transport == nodens_testkit::Transport::Tcp) != options.is_empty());
        assert!(tcp, "{:?}", upstream.received());
        assert_eq!(ask(&agent, "www.example."), 0);
        assert!(!agent.process.dump().contains("Loop ("), "{}", agent.process.dump());
        assert_eq!(agent.metrics().sum("coredns_reload_failed_total", &[]), 0);
    }
}
