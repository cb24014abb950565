//! Listeners over the life of the process.
//!
//! The core and the workers know a listener by its number, and a reload must not give a number to another address: sockets that
//! stay would answer for the wrong zones. So every address gets a place of its own the first time it is wanted. When it is
//! wanted no longer its place stays, without a socket, and keeps those of its zones that are served elsewhere still: what was in flight
//! on it is answered under the new configuration, and its counters do not vanish from the metrics.

use std::net::SocketAddr;

use nodens_core::config::{Listener, Route};
use nodens_core::wire::Name;
use nodens_core::{Config, ListenerId};

use crate::admin::metrics::{Labels, ListenerLabels, RouteLabels};

/// Every address that was ever wanted.
#[derive(Clone, Debug)]
pub(super) struct Places(Vec<Place>);

#[derive(Clone, Debug)]
struct Place {
    /// As it is written: a port 0 stays one.
    wanted: SocketAddr,
    is_open: bool,
}

/// What has to happen so that another set of addresses is served.
pub(super) struct Change {
    /// The places afterwards.
    pub(super) places: Places,
    /// To be bound.
    pub(super) added: Vec<(usize, SocketAddr)>,
    /// To be closed.
    pub(super) gone: Vec<ListenerId>,
}

impl Places {
    /// The first addresses, in their order.
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        Places(addresses.iter().map(|wanted| Place { wanted: *wanted, is_open: true }).collect())
    }

    /// What is served now: places and addresses. Where a port was the kernel's choice, `bound` has it.
    pub(super) fn open(&self, bound: &[SocketAddr]) -> Vec<(usize, SocketAddr)> {
        let real = |index: usize, wanted: SocketAddr| {
            if wanted.port() == 0 { bound.get(index).copied().unwrap_or(wanted) } else { wanted }
        };
        let open = self.0.iter().enumerate().filter(|(_, place)| place.is_open);
        open.map(|(index, place)| (index, real(index, place.wanted))).collect()
    }

    /// Puts the listeners of `config` and `labels`, which are those of `addresses` in their order, to their places, beside what is
    /// left of `running`.
    pub(super) fn arrange(
        &self,
        addresses: &[SocketAddr],
        config: &mut Config,
        labels: &mut Labels,
        running: (&Config, &Labels),
    ) -> Change {
        let mut places = self.clone();
        let mut added = Vec::new();
        let mut at = Vec::with_capacity(addresses.len());
        for wanted in addresses {
            let index = places.0.iter().position(|place| place.wanted == *wanted).unwrap_or_else(|| {
                places.0.push(Place { wanted: *wanted, is_open: false });
                places.0.len() - 1
            });
            if !places.0[index].is_open {
                places.0[index].is_open = true;
                added.push((index, *wanted));
            }
            at.push(index);
        }
        let new_listeners = std::mem::take(&mut config.listeners);
        let new_labels = std::mem::take(&mut labels.listeners);
        let mut gone = Vec::new();
        for (index, place) in places.0.iter_mut().enumerate() {
            let (listener, label) = match at.iter().position(|of| *of == index) {
                Some(new) => (new_listeners[new].clone(), new_labels[new].clone()),
                None => {
                    if std::mem::replace(&mut place.is_open, false) {
                        // There are at most 65536 places: binding another has failed.
                        gone.extend(u16::try_from(index).map(ListenerId));
                    }
                    rest(index, running, &new_listeners)
                }
            };
            config.listeners.push(listener);
            labels.listeners.push(label);
        }
        Change { places, added, gone }
    }
}

/// What a place without a socket still answers for.
fn rest(index: usize, running: (&Config, &Labels), elsewhere: &[Listener]) -> (Listener, ListenerLabels) {
    let (old, label) = (&running.0.listeners[index], &running.1.listeners[index]);
    let zone = |apex: &Name| {
        let routes = elsewhere.iter().flat_map(|listener| &listener.routes);
        routes.clone().find(|route| route.apex == *apex).map(|route| route.zone)
    };
    let kept = old.routes.iter().zip(&label.routes).filter_map(|(route, label)| {
        let apex = route.apex.clone();
        // Its plug-ins are enabled there no more.
        Some((Route { zone: zone(&apex)?, apex }, RouteLabels { plugins: Vec::new(), ..label.clone() }))
    });
    let (routes, labels) = kept.unzip();
    (Listener { routes }, ListenerLabels { server: label.server.clone(), routes: labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_config::{Built, Environment, ZoneIds, build};
    use crate::corefile::{self, LoadOptions, Source};

    struct Text<'a>(&'a str);

    impl Source for Text<'_> {
        fn read(&self, _: &str) -> std::io::Result<Vec<u8>> {
            Ok(self.0.as_bytes().to_vec())
        }

        fn list(&self, _: &str) -> std::io::Result<Vec<String>> {
            Ok(Vec::new())
        }

        fn env(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn built(text: &str) -> Built {
        let corefile = corefile::load("Corefile", &Text(text), &LoadOptions::default()).expect("good");
        build(&corefile, &Environment::of_this_machine(), &mut ZoneIds::default()).expect("good")
    }

    fn routes(config: &Config) -> Vec<Vec<(String, usize)>> {
        let of = |l: &Listener| l.routes.iter().map(|r| (r.apex.to_string(), r.zone)).collect();
        config.listeners.iter().map(of).collect()
    }

    #[test]
    fn m82_an_address_keeps_its_number_whatever_comes_and_goes() {
        let first = built(". example.org {\n bind 127.0.0.1 127.0.0.2\n forward . 192.0.2.1\n}\n");
        let places = Places::new(&first.plan.listeners);
        // 127.0.0.1 goes, 127.0.0.3 comes before 127.0.0.2 in the file, example.org goes.
        let mut second = built(". {\n bind 127.0.0.3 127.0.0.2\n forward . 192.0.2.1\n}\n");
        let running = (&first.config, &first.plan.labels);
        let change =
            places.arrange(&second.plan.listeners, &mut second.config, &mut second.plan.labels, running);
        assert_eq!(change.added, [(2, "127.0.0.3:53".parse().expect("an address"))]);
        assert_eq!(change.gone, [ListenerId(0)]);
        let root = || vec![(".".to_owned(), 0)];
        assert_eq!(routes(&second.config), [root(), root(), root()]);
        let servers: Vec<_> = second.plan.labels.listeners.iter().map(|l| l.server.as_str()).collect();
        assert_eq!(servers, ["dns://127.0.0.1:53", "dns://127.0.0.2:53", "dns://127.0.0.3:53"]);
        assert!(second.plan.labels.listeners[0].routes[0].plugins.is_empty());
        assert_eq!(second.config.check(), Ok(()));

        // It comes again, to its old place.
        let mut third = built(". {\n bind 127.0.0.1\n forward . 192.0.2.1\n}\n");
        let running = (&second.config, &second.plan.labels);
        let change =
            change.places.arrange(&third.plan.listeners, &mut third.config, &mut third.plan.labels, running);
        assert_eq!(change.added, [(0, "127.0.0.1:53".parse().expect("an address"))]);
        assert_eq!(change.gone, [ListenerId(1), ListenerId(2)]);
        assert_eq!(third.config.check(), Ok(()));
    }
}
