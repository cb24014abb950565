//! Models of what a worker shares with the control thread: loom runs each through every order in which its threads can meet.
//!
//! ```text
//! RUSTFLAGS="--cfg nodens_loom" cargo test -p nodens-runtime --release --test loom --target-dir target/loom
//! ```
//!
//! A model returns what its threads saw, and all that can be seen is compared with the full list of what may be seen. A wake-up that
//! can get lost shows as a deadlock, which loom reports. The agent hands counters on through arc-swap, whose inside
//! loom cannot see; a lock stands in for it, and what is modelled is our use of it.
#![cfg(nodens_loom)]

use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;
use nodens_core::config::Limits;
use nodens_core::{Config, Instant, ListenerId, Stats};
use nodens_runtime::{InForce, Order, Orders, Stop, StopSignal};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// All that a model can come to.
fn outcomes<T: Ord + Send + 'static>(model: impl Fn() -> T + Send + Sync + 'static) -> Vec<T> {
    let seen = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let all = seen.clone();
    loom::model(move || {
        let outcome = model();
        all.lock().expect("one thread").insert(outcome);
    });
    let mut seen = seen.lock().expect("one thread");
    std::mem::take(&mut *seen).into_iter().collect()
}

/// A configuration without listeners, zones and upstreams.
fn config() -> Arc<Config> {
    let (listeners, zones, upstreams) = (Vec::new(), Vec::new(), Vec::new());
    Arc::new(Config { listeners, zones, upstreams, trust_ad: false, limits: Limits::default() })
}

/// An order that is told from others by its number.
fn order(number: u16) -> (Order, InForce) {
    Order::new(config(), Vec::new(), vec![ListenerId(number)])
}

fn number(order: &Order) -> u16 {
    order.gone[0].0
}

/// Carries an order out as a worker does; returns its number.
fn carry_out(order: Order) -> u16 {
    let number = number(&order);
    let stats = Stats::new(&order.config);
    order.answer(Ok(Arc::new(stats)));
    number
}

fn by(nanos: u64) -> Stop {
    Stop { deadline: Instant::from_nanos(nanos), is_last: false }
}

#[test]
fn orders_are_carried_out_one_after_the_other_and_none_is_lost() {
    let seen = outcomes(|| {
        let orders = Arc::new(Orders::default());
        let mailbox = Arc::clone(&orders);
        let worker = thread::spawn(move || {
            block_on(async { [carry_out(mailbox.next().await), carry_out(mailbox.next().await)] })
        });
        let (first, first_in_force) = order(1);
        let (second, second_in_force) = order(2);
        orders.put(first);
        orders.put(second);
        // If the second is in force, the first is.
        let second_seen = second_in_force.poll().is_some_and(|answer| answer.is_ok());
        let first_seen = first_in_force.poll().is_some_and(|answer| answer.is_ok());
        assert_eq!(worker.join().expect("no panic"), [1, 2], "the newest is in force at the end");
        assert!(first_seen || first_in_force.poll().is_some_and(|answer| answer.is_ok()));
        assert!(second_seen || second_in_force.poll().is_some_and(|answer| answer.is_ok()));
        (first_seen, second_seen)
    });
    assert_eq!(seen, [(false, false), (true, false), (true, true)]);
}

#[test]
fn two_who_order_at_once_are_both_obeyed() {
    let seen = outcomes(|| {
        let orders = Arc::new(Orders::default());
        // Nobody looks for the answers, which would only multiply the orders to try.
        let [first, second] = [1, 2].map(order);
        let senders = [first.0, second.0].map(|order| {
            let orders = Arc::clone(&orders);
            thread::spawn(move || orders.put(order))
        });
        let obeyed = block_on(async { [orders.next().await, orders.next().await] });
        let obeyed = obeyed.map(|order| number(&order));
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        obeyed
    });
    assert_eq!(seen, [[1, 2], [2, 1]]);
}

/// A worker that carries out orders until it is told to stop, as both runtimes do, and then is gone.
async fn work(stop: &StopSignal, orders: &Orders) -> bool {
    let mut carried_out = false;
    poll_fn(|context| {
        while let Poll::Ready(order) = pin!(orders.next()).poll(context) {
            carry_out(order);
            carried_out = true;
        }
        pin!(stop.requested()).poll(context).map(|_| ())
    })
    .await;
    orders.close();
    carried_out
}

#[test]
fn a_stop_is_seen_beside_an_order_and_the_order_is_answered_either_way() {
    let seen = outcomes(|| {
        let (orders, stop) = (Arc::new(Orders::default()), Arc::new(StopSignal::default()));
        let (mailbox, wish) = (Arc::clone(&orders), Arc::clone(&stop));
        let worker = thread::spawn(move || block_on(work(&wish, &mailbox)));
        let stopper = thread::spawn(move || stop.request(by(1)));
        let (order, in_force) = order(1);
        orders.put(order);
        stopper.join().expect("no panic");
        let carried_out = worker.join().expect("the stop is seen");
        match in_force.poll().expect("nobody waits for a worker that has ended") {
            Ok(_) => assert!(carried_out),
            Err(error) => assert!(!carried_out && error.kind() == ErrorKind::BrokenPipe),
        }
        carried_out
    });
    assert_eq!(seen, [false, true]);
}

#[test]
fn a_second_wish_to_stop_only_shortens_the_time() {
    let seen = outcomes(|| {
        let stop = Arc::new(StopSignal::default());
        let askers = [5, 3].map(|deadline| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || stop.request(by(deadline)))
        });
        let first = block_on(stop.requested());
        let then = stop.wish().expect("somebody asked");
        assert!(then.deadline <= first.deadline, "the time was prolonged");
        askers.into_iter().for_each(|asker| asker.join().expect("no panic"));
        assert_eq!(stop.wish(), Some(by(3)));
        (first.deadline.as_nanos(), then.deadline.as_nanos())
    });
    assert_eq!(seen, [(3, 3), (5, 3), (5, 5)]);
}

#[test]
fn a_counter_only_grows_under_the_eyes_of_a_reader() {
    let seen = outcomes(|| {
        let stats = Arc::new(Stats::new(&config()));
        let own = Arc::clone(&stats);
        let writer = thread::spawn(move || {
            own.shed.add(1);
            own.shed.add(1 << 40);
        });
        // In a thread of its own: what the first thread does before it waits for anything, loom takes to be before all others.
        let read = Arc::clone(&stats);
        let reader = thread::spawn(move || [read.shed.get(), read.shed.get()]);
        let reads = reader.join().expect("no panic");
        writer.join().expect("no panic");
        assert_eq!(stats.shed.get(), (1 << 40) + 1, "one writer loses nothing");
        reads
    });
    const BOTH: u64 = (1 << 40) + 1;
    assert_eq!(seen, [[0, 0], [0, 1], [0, BOTH], [1, 1], [1, BOTH], [BOTH, BOTH]]);
}

#[test]
fn counters_do_not_fall_back_when_a_reload_exchanges_them() {
    let seen = outcomes(|| {
        let orders = Arc::new(Orders::default());
        let old = Arc::new(Stats::new(&config()));
        let shown = Arc::new(Mutex::new(Arc::clone(&old)));
        let mailbox = Arc::clone(&orders);
        let worker = thread::spawn(move || {
            old.shed.add(1);
            let order = block_on(mailbox.next());
            let new = Arc::new(Stats::new(&order.config));
            new.adopt(&old, &order.config, &order.config);
            order.answer(Ok(Arc::clone(&new)));
            new.shed.add(1);
        });
        let show = Arc::clone(&shown);
        let control = thread::spawn(move || {
            let (order, in_force) = order(1);
            orders.put(order);
            let stats = loop {
                match in_force.poll() {
                    Some(answer) => break answer.expect("the worker lives"),
                    None => thread::yield_now(),
                }
            };
            *show.lock().expect("no panic") = stats;
        });
        let scrape = || {
            let stats = Arc::clone(&shown.lock().expect("no panic"));
            stats.shed.get()
        };
        let reads = [scrape(), scrape()];
        worker.join().expect("no panic");
        control.join().expect("no panic");
        assert_eq!(scrape(), 2);
        reads
    });
    assert_eq!(seen, [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]]);
}
