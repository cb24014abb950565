//! `nodens demo`: the service with a made-up world behind it, on one machine, without a cluster.
//!
//! It is the real agent with a real Corefile ([`corefile`]); only the upstream is ours ([`upstream`]), a small server with a few
//! zones ([`zones`]) that answers as CoreDNS in a cluster and a resolver behind it would. What to type and what happens
//! is shown by [`status`]. Nothing here is used when nodens serves a cluster.

pub mod answer;
mod run;
pub mod status;
pub mod upstream;
pub mod zones;

use std::net::SocketAddr;

pub use answer::{Transport, answer};
pub use run::run;
pub use status::Status;
pub use upstream::{DemoUpstream, start};

/// The Corefile of the demo: everything goes to `upstream`, answers are kept, `listen` is served.
pub fn corefile(upstream: SocketAddr, listen: SocketAddr) -> String {
    let (ip, port) = (listen.ip(), listen.port());
    format!(".:{port} {{\n    bind {ip}\n    errors\n    cache 30\n    forward . {upstream}\n}}\n")
}

/// What the demo says when it serves: what to type, and what is to be seen.
pub fn intro(listen: SocketAddr) -> String {
    let dig = format!("dig @{} -p {}", listen.ip(), listen.port());
    format!(
        "nodens answers on {listen}, over UDP and TCP; behind it is a small upstream with a made-up cluster.\n\
         In another terminal, twice each (the second answer comes from the cache):\n\n\
         \x20 {dig} kubernetes.default.svc.cluster.local\n\
         \x20 {dig} www.example.com AAAA\n\
         \x20 {dig} +tcp _dns._udp.kube-dns.kube-system.svc.cluster.local SRV\n\
         \x20 {dig} big.example.com      # too large for UDP: dig asks again over TCP\n\n\
         Ctrl-C ends it.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_intro_names_the_address_and_four_commands() {
        let text = intro("127.0.0.1:5300".parse().expect("an address"));
        assert_eq!(text.matches("dig @127.0.0.1 -p 5300 ").count(), 4);
        assert!(text.contains("+tcp"));
    }

    #[test]
    fn the_corefile_is_one_that_can_be_served() {
        use crate::build_config::{Environment, ZoneIds, build};
        use crate::corefile::{LoadOptions, Source, load};

        struct Text(String);
        impl Source for Text {
            fn read(&self, _: &str) -> std::io::Result<Vec<u8>> {
                Ok(self.0.clone().into_bytes())
            }
            fn list(&self, _: &str) -> std::io::Result<Vec<String>> {
                Ok(Vec::new())
            }
            fn env(&self, _: &str) -> Option<String> {
                None
            }
        }
        let [upstream, listen] = ["127.0.0.1:4053", "127.0.0.1:5300"].map(|a| a.parse().expect("an address"));
        let text = Text(corefile(upstream, listen));
        let corefile = load("demo", &text, &LoadOptions::default()).expect("a good Corefile");
        assert!(corefile.warnings.is_empty());
        let built =
            build(&corefile, &Environment::of_this_machine(), &mut ZoneIds::default()).expect("served");
        assert_eq!(built.plan.listeners, [listen]);
        assert_eq!(built.config.upstreams[0].address, upstream);
    }
}
