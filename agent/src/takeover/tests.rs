use super::*;
use nodens_runtime::socket::udp_listener;
use std::os::unix::net::UnixListener as StdListener;

const PATIENCE: Duration = Duration::from_secs(5);

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn listener(address: &str) -> UdpSocket {
    udp_listener(address.parse().expect("an address")).expect("loopback can be bound")
}

fn clone(socket: &UdpSocket) -> UdpSocket {
    socket.try_clone().expect("a descriptor")
}

/// What a dead agent leaves behind: a socket that nobody reads, in a group with ours, and the end of a connection.
#[tokio::test]
async fn queries_that_wait_for_a_dead_agent_are_answered_from_its_address() {
    let ours = listener("127.0.0.1:0");
    let address = ours.local_addr().expect("bound");
    let theirs = listener(&address.to_string());
    let mut reports = begin(vec![clone(&ours)], me()).expect("a name can be shown");
    let group = format!("{PREFIX}{address}");
    let names = names::shown(&group);
    assert_eq!(names.len(), 1);
    let other = UnixStream::connect_addr(&names::address(&group, &names[0]).expect("a name")).expect("met");
    other.set_nonblocking(true).expect("an option");
    let other = tokio::net::UnixStream::from_std(other).expect("a stream");
    handing::give(&other, &[clone(&theirs)]).await.expect("given");
    let handed = handing::take(&other).await.expect("given in turn");
    assert_eq!(handed[0].local_addr().expect("bound"), address);
    drop(handed);

    // Some ports go to the one socket, some to the other.
    let clients: Vec<_> = (0..32_u8).map(|_| listener("127.0.0.1:0")).collect();
    for (n, client) in (0..).zip(&clients) {
        client.send_to(&[n, 1], address).expect("sent");
    }
    // The agent that lives answers all that reaches it.
    let serve = tokio::net::UdpSocket::from_std(ours).expect("a socket");
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        while let Ok((len, client)) = serve.recv_from(&mut buffer).await {
            buffer[1] = 2;
            let _ = serve.send_to(&buffer[..len], client).await;
        }
    });
    drop((theirs, other));
    let relayed = timeout(PATIENCE, reports.recv()).await.expect("in time").expect("it goes on");
    assert!(relayed > 0 && relayed < clients.len(), "{relayed}: the kernel spreads ports");
    let mut answer = [0; 16];
    for (n, client) in (0..).zip(&clients) {
        let (len, from) = client.recv_from(&mut answer).expect("answered by now");
        assert_eq!((&answer[..len], from), (&[n, 2][..], address));
    }
}

#[tokio::test]
async fn a_stranger_is_given_nothing_and_brings_nothing() {
    let ours = listener("127.0.0.1:0");
    let group = format!("{PREFIX}{}", ours.local_addr().expect("bound"));
    // A name of a stranger that waits for us: whoever runs this test is one if only another user is trusted.
    let (_, trap) = names::show(&group, StdListener::bind_addr).expect("a name");
    trap.set_nonblocking(true).expect("an option");
    let trap = tokio::net::UnixListener::from_std(trap).expect("a listener");
    let others = Ours { sockets: vec![clone(&ours)], addresses: BTreeSet::new(), users: vec![me() + 1] };
    let stream = UnixStream::connect_addr(&names::address(&group, &names::shown(&group)[0]).expect("a name"));
    let stream = stream.expect("met");
    stream.set_nonblocking(true).expect("an option");
    let (told, _reports) = mpsc::channel(1);
    meet(tokio::net::UnixStream::from_std(stream).expect("a stream"), Arc::new(others), told).await;
    let (trapped, _) = trap.accept().await.expect("it came");
    assert!(handing::take(&trapped).await.is_err(), "and left without a word");
}

#[tokio::test]
async fn sockets_of_other_addresses_are_not_taken() {
    let (ours, foreign) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
    let address = ours.local_addr().expect("bound");
    let _reports = begin(vec![clone(&ours)], me()).expect("a name can be shown");
    let group = format!("{PREFIX}{address}");
    let other = UnixStream::connect_addr(&names::address(&group, &names::shown(&group)[0]).expect("a name"));
    let other = other.expect("met");
    other.set_nonblocking(true).expect("an option");
    let other = tokio::net::UnixStream::from_std(other).expect("a stream");
    handing::give(&other, &[clone(&foreign)]).await.expect("given");
    drop(other);
    // It would be connected now, and hear no stranger.
    sleep(LAST_CALL * 5).await;
    let client = listener("127.0.0.1:0");
    client.send_to(b"still there", foreign.local_addr().expect("bound")).expect("sent");
    assert!(foreign.recv_from(&mut [0; 16]).is_ok());
}
