use super::*;
use nodens_runtime::socket::udp_listener;

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

/// An agent on this address, and another one that it has met: how the latter is called, its name, and its end of the connection.
async fn met(ours: &UdpSocket) -> (Takeover, String, UnixListener, UnixStream) {
    let takeover = Takeover::begin(vec![clone(ours)], me()).expect("a name can be shown");
    let group = format!("{PREFIX}{}", ours.local_addr().expect("bound"));
    let names = names::shown(&group);
    let (since, name) = names::show(&group, UnixListener::bind_addr).expect("another name");
    let stream = handing::go_to(&group, &names[0]).expect("it is there");
    (takeover, since, name, stream)
}

/// Some ports go to the one socket of a group, some to the other; a question is its number.
fn ask(address: SocketAddr) -> Vec<UdpSocket> {
    let clients: Vec<_> = (0..32_u8).map(|_| listener("127.0.0.1:0")).collect();
    for (n, client) in (0..).zip(&clients) {
        client.send_to(&[n, 1], address).expect("sent");
    }
    clients
}

/// The agent that lives answers all that reaches it.
fn serve(socket: UdpSocket) {
    let socket = tokio::net::UdpSocket::from_std(socket).expect("a socket");
    tokio::spawn(async move {
        let mut buffer = [0; 16];
        while let Ok((len, client)) = socket.recv_from(&mut buffer).await {
            buffer[1] = 2;
            let _ = socket.send_to(&buffer[..len], client).await;
        }
    });
}

#[tokio::test]
async fn queries_that_wait_for_a_dead_agent_are_answered_from_its_address() {
    let ours = listener("127.0.0.1:0");
    let address = ours.local_addr().expect("bound");
    let theirs = listener(&address.to_string());
    let (mut takeover, since, name, stream) = met(&ours).await;
    handing::give(&stream, &since, &[clone(&theirs).into()]).await.expect("given");
    let (_, handed) = handing::take(&stream).await.expect("given in turn");
    assert_eq!(handed[0].local_addr().expect("bound"), address);
    drop(handed);

    let clients = ask(address);
    serve(ours);
    // The kernel closes one after the other.
    drop((theirs, stream));
    sleep(LOOK * 5).await;
    drop(name);
    let relayed = timeout(PATIENCE, takeover.reports.recv()).await.expect("in time").expect("it goes on");
    assert!(relayed > 0 && relayed < clients.len(), "{relayed}: the kernel spreads ports");
    let mut answer = [0; 16];
    for (n, client) in (0..).zip(&clients) {
        let (len, from) = client.recv_from(&mut answer).expect("answered by now");
        assert_eq!((&answer[..len], from), (&[n, 2][..], address));
    }
}

#[tokio::test]
async fn nothing_is_taken_from_an_agent_that_lives_though_the_connection_has_ended() {
    let ours = listener("127.0.0.1:0");
    let address = ours.local_addr().expect("bound");
    let theirs = listener(&address.to_string());
    let (mut takeover, since, _name, stream) = met(&ours).await;
    handing::give(&stream, &since, &[clone(&theirs).into()]).await.expect("given");
    drop(stream);
    serve(ours);
    assert!(timeout(NAME_PATIENCE + LAST_CALL * 10, takeover.reports.recv()).await.is_err());
    let clients = ask(address);
    let mut heard = 0;
    while theirs.recv_from(&mut [0; 16]).is_ok() {
        heard += 1;
    }
    assert!(heard > 0 && heard < clients.len(), "{heard}: it still gets its share");
}

#[tokio::test]
async fn a_stranger_is_given_nothing() {
    let ours = listener("127.0.0.1:0");
    // Whoever runs this test is a stranger if only another user is trusted.
    let (_takeover, since, name, _) = met(&ours).await;
    let group = format!("{PREFIX}{}", ours.local_addr().expect("bound"));
    name.set_nonblocking(true).expect("an option");
    let name = tokio::net::UnixListener::from_std(name).expect("a listener");
    let careful = Ours {
        group: group.clone(),
        since: String::new(),
        sockets: Mutex::new(vec![clone(&ours).into()]),
        addresses: BTreeSet::new(),
        users: vec![me() + 1],
    };
    let (told, _reports) = mpsc::channel(1);
    meet(handing::go_to(&group, &since).expect("a connection"), Arc::new(careful), told).await;
    let (trapped, _) = name.accept().await.expect("it came");
    assert!(handing::take(&trapped).await.is_err(), "and left without a word");
}

#[tokio::test]
async fn sockets_of_other_addresses_are_not_taken() {
    let (ours, foreign) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
    let (_takeover, since, name, stream) = met(&ours).await;
    handing::give(&stream, &since, &[clone(&foreign).into()]).await.expect("given");
    drop((stream, name));
    // It would be connected now, and hear no stranger.
    sleep(LAST_CALL * 5).await;
    let client = listener("127.0.0.1:0");
    client.send_to(b"still there", foreign.local_addr().expect("bound")).expect("sent");
    assert!(foreign.recv_from(&mut [0; 16]).is_ok());
}

#[tokio::test]
async fn a_port_that_is_served_no_longer_is_let_go_of() {
    let (stays, goes) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
    let [at, gone] = [&stays, &goes].map(|socket| socket.local_addr().expect("bound"));
    let takeover = Takeover::begin(vec![clone(&stays), clone(&goes)], me()).expect("a name can be shown");
    drop((stays, goes));
    assert!(UdpSocket::bind(gone).is_err());
    takeover.keep_only(&[at]);
    assert!(UdpSocket::bind(gone).is_ok() && UdpSocket::bind(at).is_err());
}
