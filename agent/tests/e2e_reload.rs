//! A new Corefile for the running process: by signal, by looking at the file, and under load.

mod support;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nodens_testkit::msg::rcode::NOERROR;
use nodens_testkit::process::signal::SIGTERM;
use nodens_testkit::{Query, Reply, TcpClient, UdpClient, Upstream, answers, free_port};

use support::{Agent, COREFILE, PATIENCE, eventually, get, loopback, report};

const SIGHUP: i32 = 1;
const SIGUSR1: i32 = 10;

const DONE: &str = "Reloading complete";
const FAILED: &str = "reload failed";

fn named(name: &str) -> Query {
    Query::new(name, "A")
}

/// An upstream that signs its answers with its number.
fn signing(number: usize) -> Upstream {
    Upstream::start(answers(move |query| query.response().answer(&format!("@ 60 IN A 192.0.2.{number}"))))
}

fn start(upstream: &Upstream) -> Agent {
    Agent::before(upstream.addr())
}

/// The Corefile of [`start`], changed.
fn corefile(agent: &Agent, upstream: &Upstream, lines: &str) -> String {
    COREFILE
        .replace("{$UPSTREAM}", &upstream.addr().to_string())
        .replace("{$HTTP}", &agent.http.to_string())
        .replace("    errors\n", &format!("    errors\n{lines}"))
}

/// Writes a Corefile, sends a signal and waits for what comes of it.
fn reload(agent: &Agent, text: &str, signal: i32, outcome: &str) {
    agent.rewrite(text);
    let before = agent.process.line_count();
    agent.process.signal(signal);
    let line = agent.process.wait_for_line_after(before, outcome, PATIENCE);
    assert!(line.is_some(), "waited for {outcome:?}\n{}", agent.process.dump());
}

#[test]
fn m78_m82_each_signal_brings_the_new_corefile_and_the_cache_stays() {
    let (old, new) = (signing(1), signing(2));
    let agent = start(&old);
    let mut tcp = TcpClient::connect(agent.dns).expect("connected");
    assert_eq!(agent.udp(&named("kept.example.")).rdatas("A"), ["192.0.2.1"]);
    reload(&agent, &corefile(&agent, &old, "    log\n"), SIGHUP, DONE);
    let before = agent.process.line_count();
    let reply = tcp.ask(&named("kept.example.").bytes(), PATIENCE).expect("the connection stays");
    assert_eq!(reply.rdatas("A"), ["192.0.2.1"]);
    assert_eq!(old.count_for("kept.example.", "A"), 1, "answered from the cache");
    assert!(agent.process.wait_for_line_after(before, "kept.example.", PATIENCE).is_some(), "logged now");

    reload(&agent, &corefile(&agent, &new, ""), SIGUSR1, DONE);
    assert_eq!(agent.udp(&named("kept.example.")).rdatas("A"), ["192.0.2.2"], "the old one has no say");
    for path in ["/health", "/ready"] {
        assert_eq!(agent.get(path).expect("served").status, 200, "{path}");
    }
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("coredns_dns_requests_total", &[]), 3, "counts go on");
    assert_eq!(metrics.sum("coredns_reload_failed_total", &[]), 0);
}

#[test]
fn m79_a_bad_corefile_leaves_the_old_one_serving_and_says_everything() {
    let (old, new) = (signing(1), signing(2));
    let agent = start(&old);
    for n in 1..=2 {
        let bad = corefile(&agent, &new, "    cahce 30\n    bufsize 1\n");
        reload(&agent, &bad, SIGHUP, FAILED);
        assert_eq!(agent.metrics().sum("coredns_reload_failed_total", &[]), n);
        assert_eq!(agent.udp(&named(&format!("n{n}.example."))).rdatas("A"), ["192.0.2.1"]);
    }
    let log = agent.process.dump();
    for wanted in ["unknown plug-in `cahce`", "did you mean `cache`?", "out of range", "2 mistakes"] {
        assert!(log.contains(wanted), "{wanted} is missing\n{log}");
    }
    std::fs::remove_file(agent.directory().path("Corefile")).expect("it is there");
    agent.process.signal(SIGHUP);
    eventually("the third failure", PATIENCE, || {
        (agent.metrics().sum("coredns_reload_failed_total", &[]) == 3).then_some(())
    });
    reload(&agent, &corefile(&agent, &new, ""), SIGHUP, DONE);
    assert_eq!(agent.udp(&named("n1.example.")).rdatas("A"), ["192.0.2.2"]);
    assert_eq!(agent.get("/health").expect("served").status, 200);
}

#[test]
fn a_port_that_is_taken_refuses_the_whole_corefile() {
    let (old, new) = (signing(1), signing(2));
    let agent = start(&old);
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let holder = UdpSocket::bind(taken).expect("the same port");
    let elsewhere = format!(
        "other.example:{} {{\n    bind 127.0.0.1\n    forward . {}\n}}\n",
        holder.local_addr().expect("bound").port(),
        new.addr()
    );
    reload(&agent, &(corefile(&agent, &new, "") + &elsewhere), SIGHUP, FAILED);
    assert!(agent.process.dump().contains("another program holds the port"), "{}", agent.process.dump());
    assert_eq!(agent.udp(&named("www.example.")).rdatas("A"), ["192.0.2.1"]);
}

#[test]
fn m68_m78_the_file_is_watched_without_a_signal() {
    let (old, new) = (signing(1), signing(2));
    let agent = start(&old);
    reload(&agent, &corefile(&agent, &old, "    reload 2s 0\n"), SIGHUP, DONE);
    let before = agent.process.line_count();
    agent.rewrite(&corefile(&agent, &new, "    reload 2s 0\n"));
    assert!(agent.process.wait_for_line_after(before, DONE, PATIENCE).is_some(), "{}", agent.process.dump());
    assert_eq!(agent.udp(&named("www.example.")).rdatas("A"), ["192.0.2.2"]);
    // A mistake is complained about once, not with every look.
    let before = agent.process.line_count();
    agent.rewrite("nonsense {");
    assert!(agent.process.wait_for_line_after(before, FAILED, PATIENCE).is_some());
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(agent.metrics().sum("coredns_reload_failed_total", &[]), 1);
}

#[test]
fn m80_reloads_and_sigterm_at_once_end_well() {
    let upstream = signing(1);
    let mut agent = start(&upstream);
    let texts = [corefile(&agent, &upstream, "    log\n"), corefile(&agent, &upstream, "")];
    for n in 0..20 {
        agent.rewrite(&texts[n % 2]);
        agent.process.signal(SIGHUP);
        std::thread::sleep(Duration::from_millis(2));
    }
    agent.process.signal(SIGTERM);
    assert_eq!(agent.exit_code(), Some(0), "{}", agent.process.dump());
}

#[test]
fn m81_endpoints_move_and_none_is_leaked() {
    let upstream = signing(1);
    let agent = start(&upstream);
    let other = loopback(free_port());
    let here = corefile(&agent, &upstream, "");
    let there = here
        .replace(&format!("prometheus {}", agent.http), &format!("prometheus {other}"))
        .replace("lameduck {$LAMEDUCK}", "lameduck 0s");
    for _ in 0..3 {
        reload(&agent, &there, SIGHUP, DONE);
        assert_eq!(get(other, "/metrics").expect("served").status, 200);
        assert_eq!(agent.get("/metrics").expect("/health is here").status, 404);
        reload(&agent, &here, SIGHUP, DONE);
        assert_eq!(agent.get("/metrics").expect("served").status, 200);
        eventually("the other port is closed", PATIENCE, || get(other, "/metrics").is_none().then_some(()));
    }
}

#[test]
fn addresses_come_and_go_and_others_are_not_touched() {
    let (old, new) = (signing(1), signing(2));
    let agent = start(&old);
    let second = loopback(free_port());
    let both = corefile(&agent, &old, "")
        + &format!(
            "new.example:{} {{\n    bind 127.0.0.1\n    forward . {}\n}}\n",
            second.port(),
            new.addr()
        );
    let ask = |name: &str| UdpClient::new().ask(second, &named(name).bytes(), Duration::from_secs(1));
    assert!(ask("a.new.example.").is_none());
    reload(&agent, &both, SIGHUP, DONE);
    assert_eq!(ask("a.new.example.").expect("an answer").rdatas("A"), ["192.0.2.2"]);
    assert_eq!(agent.udp(&named("a.new.example.")).rdatas("A"), ["192.0.2.1"], "the first one goes on");
    reload(&agent, &corefile(&agent, &old, ""), SIGHUP, DONE);
    assert!(ask("b.new.example.").is_none(), "nobody answers there");
    reload(&agent, &both, SIGHUP, DONE);
    assert_eq!(ask("c.new.example.").expect("an answer").rdatas("A"), ["192.0.2.2"]);
    assert_eq!(agent.udp(&named("d.example.")).rdatas("A"), ["192.0.2.1"]);
}

#[test]
fn what_only_a_restart_changes_is_said_and_the_rest_is_taken() {
    let (old, new) = (signing(1), signing(2));
    let agent = start(&old);
    let text = corefile(&agent, &new, "").replace("workers 2", "workers 3\n        cache_bytes 1048576");
    reload(&agent, &text, SIGHUP, DONE);
    let log = agent.process.dump();
    for option in ["workers", "cache_bytes"] {
        assert!(log.contains(&format!("`{option}` in the Corefile is changed by a restart only")), "{log}");
    }
    assert_eq!(agent.udp(&named("www.example.")).rdatas("A"), ["192.0.2.2"]);
}

/// How many mutations, if not 50: `make soak` has a thousand.
const MUTATIONS: &str = "NODENS_TEST_MUTATIONS";
const SOCKETS: usize = 16;
const PACE: Duration = Duration::from_micros(500);
/// Longer than any lookup may take.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// What each upstream may have answered, and until when: from the moment that its Corefile was written to the moment when the next
/// one was in force.
type Epochs = Vec<(usize, Instant, Option<Instant>)>;

/// Asked over one socket; the index is the message ID.
#[derive(Default)]
struct Asked {
    sent: Vec<Instant>,
    answered: Vec<Option<(usize, Instant)>>,
}

/// A small generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn random_corefiles_under_load_lose_no_query_and_none_is_answered_by_a_wrong_one() {
    let count = std::env::var(MUTATIONS).ok().map_or(50, |n| n.parse().expect("a number"));
    let upstreams: Vec<_> = (0..4).map(signing).collect();
    let agent = start(&upstreams[0]);
    let over = Arc::new(AtomicBool::new(false));
    let sockets: Vec<_> = (0..SOCKETS)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            socket.connect(agent.dns).expect("connected");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("an option");
            (Arc::new(socket), Arc::new(Mutex::new(Asked::default())))
        })
        .collect();
    let mut threads: Vec<_> = sockets
        .iter()
        .map(|(socket, asked)| {
            let (socket, asked, over) = (Arc::clone(socket), Arc::clone(asked), Arc::clone(&over));
            std::thread::spawn(move || receive(&socket, &asked, &over))
        })
        .collect();
    let mut epochs: Epochs = vec![(0, Instant::now(), None)];
    let (to_ask, stop) = (sockets.clone(), Arc::clone(&over));
    threads.push(std::thread::spawn(move || ask_all(&to_ask, &stop)));

    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..count {
        let number = dice.below(upstreams.len());
        let (text, is_good) = mutation(&agent, &upstreams[number], &mut dice);
        let written = Instant::now();
        if is_good {
            epochs.push((number, written, None));
        }
        reload(&agent, &text, SIGHUP, if is_good { DONE } else { FAILED });
        if is_good {
            let last = epochs.len() - 2;
            epochs[last].2 = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(dice.below(60) as u64));
    }
    over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a client's thread"));

    let (mut queries, mut lost, mut wrong) = (0, 0, Vec::new());
    for (n, (_, asked)) in sockets.iter().enumerate() {
        let asked = asked.lock().expect("no thread has panicked");
        for (id, (sent, answered)) in asked.sent.iter().zip(&asked.answered).enumerate() {
            queries += 1;
            let Some((signature, at)) = *answered else {
                lost += 1;
                continue;
            };
            let fits = |(number, from, until): &(usize, Instant, Option<Instant>)| {
                *number == signature && *from <= at && until.is_none_or(|until| until >= *sent)
            };
            if !epochs.iter().any(fits) {
                wrong.push((n, id, signature));
            }
        }
    }
    let good = epochs.len() - 1;
    report(&format!("{count} Corefiles, {good} of them good, under {queries} queries: {lost} lost"));
    assert!(good > count / 4 && good < count, "{good} of {count} were good");
    assert_eq!((lost, wrong), (0, vec![]), "of {queries}");
}

/// A Corefile for this upstream, with options that change nothing about answers; or one that must be refused.
fn mutation(agent: &Agent, upstream: &Upstream, dice: &mut Dice) -> (String, bool) {
    let lines = ["", "    log\n", "    bufsize 1400\n", "    bufsize 512\n    log\n", "    reload 30s\n"];
    let mut text = corefile(agent, upstream, lines[dice.below(lines.len())]);
    if dice.below(3) == 0 {
        text = text.replace("    cache\n", "    cache 30\n");
    }
    if dice.below(3) == 0 {
        text = text.replace("    cache\n", "");
    }
    if dice.below(4) == 0 {
        text = text.replace("forward .", "forward . ").replace("health_check 100ms", "force_tcp");
    }
    if dice.below(4) == 0 {
        text += &format!("more.example:{} {{\n    bind 127.0.0.2\n}}\n", agent.dns.port());
    }
    match dice.below(10) {
        0 => {
            let (begin, end) = (text.find('{').expect("a block"), text.find("nodens {").expect("an end"));
            (text[..=begin + dice.below(end - begin)].to_owned(), false)
        }
        1 => (text.replace("errors", "erorrs"), false),
        2 => (text.replace(&upstream.addr().to_string(), "nowhere"), false),
        3 => (text.replace(&upstream.addr().to_string(), &agent.dns.to_string()), false),
        _ => (text, true),
    }
}

/// Asks at a steady pace: mostly names that are asked for again and again, some that nobody has asked for.
fn ask_all(sockets: &[(Arc<UdpSocket>, Arc<Mutex<Asked>>)], over: &AtomicBool) {
    let began = Instant::now();
    for n in 0_u32.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep((PACE * n).saturating_sub(began.elapsed()));
        let (socket, asked) = &sockets[n as usize % SOCKETS];
        let name =
            if n.is_multiple_of(4) { format!("u{n}.example.") } else { format!("n{}.example.", n % 300) };
        let mut asked = asked.lock().expect("no thread has panicked");
        let id = u16::try_from(asked.sent.len()).expect("no more queries than IDs; ask over more sockets");
        asked.sent.push(Instant::now());
        asked.answered.push(None);
        socket.send(&named(&name).id(id).bytes()).expect("the loopback takes it");
    }
}

fn receive(socket: &UdpSocket, asked: &Mutex<Asked>, over: &AtomicBool) {
    let mut buffer = [0; 1500];
    let mut patience = None;
    loop {
        if let Ok(len) = socket.recv(&mut buffer) {
            let reply = Reply::parse(&buffer[..len]);
            let signature = reply.rdatas("A").first().and_then(|ip| ip.rsplit('.').next()?.parse().ok());
            let mut asked = asked.lock().expect("no thread has panicked");
            let answered = &mut asked.answered[usize::from(reply.id)];
            assert!(answered.is_none(), "{} is answered twice", reply.id);
            let signature = signature.unwrap_or_else(|| panic!("no answer but {reply:?}"));
            assert_eq!(reply.rcode, NOERROR);
            *answered = Some((signature, Instant::now()));
        }
        if over.load(Ordering::Relaxed) {
            let until = *patience.get_or_insert_with(|| Instant::now() + CLIENT_PATIENCE);
            let all = asked.lock().expect("no thread has panicked").answered.iter().all(Option::is_some);
            if all || Instant::now() > until {
                return;
            }
        }
    }
}
