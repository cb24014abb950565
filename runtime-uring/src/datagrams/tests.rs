//! The ring on real sockets: nothing is lost when buffers or slots run short, and everything comes back in the end.

use super::*;
use std::net::Ipv4Addr;
use std::time::Instant;

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn bound() -> UdpSocket {
    UdpSocket::bind(LOOPBACK).expect("loopback can be bound")
}

fn shared(listener: &UdpSocket) -> Rc<dyn AsFd> {
    Rc::new(listener.try_clone().expect("a descriptor"))
}

fn ring(listener: &UdpSocket) -> Datagrams {
    let mut ring = Datagrams::new().expect("io_uring is there (see tests/blocked.rs)");
    ring.add_listener(ListenerId(0), shared(listener), false).expect("there is a place");
    ring.submit().expect("armed");
    ring
}

fn arrival(ring: &mut Datagrams) -> Arrival {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(arrival) = ring.next() {
            return arrival;
        }
        assert!(Instant::now() < deadline, "nothing arrives");
        ring.submit().expect("the ring works");
        ring.wait().expect("the ring works");
    }
}

#[test]
fn a_datagram_brings_its_sender_and_the_answer_goes_back() {
    let (listener, client) = (bound(), bound());
    let mut ring = ring(&listener);
    client.send_to(b"query", listener.local_addr().expect("bound")).expect("sent");
    let arrival = arrival(&mut ring);
    assert_eq!(arrival.socket, Receiver::Listener(0));
    let buffer = arrival.result.expect("received").expect("not empty");
    let datagram = ring.datagram(0, &buffer).expect("whole");
    let peer = datagram.peer;
    assert_eq!((datagram.message, peer), (&b"query"[..], client.local_addr().ok()));
    ring.give_back(buffer);
    ring.send(0, peer, None, b"answer");
    ring.submit().expect("sent");
    let mut bytes = [0; 16];
    let (len, from) = client.recv_from(&mut bytes).expect("the answer");
    assert_eq!((&bytes[..len], Some(from)), (&b"answer"[..], listener.local_addr().ok()));
}

#[test]
fn more_datagrams_than_buffers_wait_in_the_socket() {
    let (listener, client) = (bound(), bound());
    let mut ring = ring(&listener);
    let all = u32::from(buffers::COUNT) * 2 + 7;
    // Bytes of the default receive buffer allow fewer than that.
    socket2::SockRef::from(&listener).set_recv_buffer_size(1 << 20).expect("an option");
    for number in 0..all {
        client.send_to(&number.to_be_bytes(), listener.local_addr().expect("bound")).expect("sent");
    }
    // All buffers are taken, and kept for now.
    let kept: Vec<_> = (0..buffers::COUNT).map(|_| arrival(&mut ring)).collect();
    ring.submit().expect("the ring works");
    assert!(!ring.lent.buffers.any_left() && ring.next().is_none());
    let mut seen = vec![];
    for arrival in kept {
        seen.push(number(&mut ring, arrival));
    }
    while seen.len() < all as usize {
        let arrival = arrival(&mut ring);
        seen.push(number(&mut ring, arrival));
    }
    assert_eq!(seen, (0..all).collect::<Vec<_>>(), "each once, in order");
}

fn number(ring: &mut Datagrams, arrival: Arrival) -> u32 {
    let buffer = arrival.result.expect("received").expect("not empty");
    let bytes = ring.datagram(0, &buffer).expect("whole").message.try_into().expect("four bytes");
    ring.give_back(buffer);
    u32::from_be_bytes(bytes)
}

#[test]
fn a_burst_of_answers_beyond_the_slots_leaves_all_the_same() {
    let (listener, client) = (bound(), bound());
    socket2::SockRef::from(&client).set_recv_buffer_size(1 << 21).expect("an option");
    let mut ring = ring(&listener);
    let burst = u32::from(crate::slots::COUNT) * 2 + 7;
    for number in 0..burst {
        ring.send(0, client.local_addr().ok(), None, &number.to_be_bytes());
    }
    ring.submit().expect("sent");
    assert_eq!(ring.take_send_failures(), 0);
    client.set_nonblocking(true).expect("an option");
    let mut bytes = [0; 4];
    let arrived = std::iter::from_fn(|| client.recv(&mut bytes).ok()).count();
    assert_eq!(arrived, burst as usize);
}

#[test]
fn what_the_kernel_does_not_take_is_counted() {
    let listener = bound();
    let mut ring = ring(&listener);
    // Nobody can be sent to at port 0.
    ring.send(0, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), None, b"answer");
    ring.send(0, listener.local_addr().ok(), None, &[0; 5000]);
    ring.submit().expect("the ring works");
    assert_eq!(ring.take_send_failures(), 2);
}

#[test]
fn closing_takes_back_what_waits() {
    let listener = bound();
    let mut ring = ring(&listener);
    let sockets: Vec<_> = (0..500).map(|_| bound()).collect();
    for (slot, socket) in sockets.iter().enumerate() {
        assert!(ring.receive(Path { slot: slot as u32, generation: 1 }, socket));
    }
    ring.submit().expect("the ring works");
    assert_eq!(ring.pending, 501);
    assert!(ring.close());
    assert_eq!(ring.pending, 0);
    assert!(!ring.receive(Path { slot: 0, generation: 2 }, &sockets[0]), "nothing is armed again");
}

#[test]
fn a_closed_path_receives_nothing_and_its_number_can_be_used_again() {
    let listener = bound();
    let mut ring = ring(&listener);
    let (old, new, upstream) = (bound(), bound(), bound());
    let addresses = [&old, &new].map(|socket| socket.local_addr().expect("bound"));
    let [before, after] = [1, 2].map(|generation| Path { slot: 7, generation });
    assert!(ring.receive(before, &old));
    ring.submit().expect("the ring works");
    ring.close_path(before, old, true);
    assert!(ring.receive(after, &new));
    ring.submit().expect("the ring works");
    for address in addresses {
        // The first is closed, which may come back as an error of the second send.
        let _ = upstream.send_to(b"response", address);
        let _ = upstream.send_to(b"response", address);
    }
    let arrival = arrival(&mut ring);
    assert_eq!(arrival.socket, Receiver::Path(after));
    let buffer = arrival.result.expect("received");
    assert_eq!(ring.message(buffer.as_ref()), b"response");
    buffer.into_iter().for_each(|buffer| ring.give_back(buffer));
    assert_eq!(ring.pending, 1, "the listener alone");
}

#[test]
fn listeners_come_and_go_and_places_are_used_again() {
    let (first, client) = (bound(), bound());
    let mut ring = ring(&first);
    for number in 1..=512 {
        let listener = bound();
        let place =
            ring.add_listener(ListenerId(number), shared(&listener), false).expect("there is a place");
        ring.submit().expect("armed");
        client.send_to(b"query", listener.local_addr().expect("bound")).expect("sent");
        let arrival = arrival(&mut ring);
        assert_eq!(arrival.socket, Receiver::Listener(place));
        assert_eq!(ring.listener(place), ListenerId(number));
        ring.give_back(arrival.result.expect("received").expect("not empty"));
        ring.remove_listener(place);
        ring.submit().expect("cancelled");
    }
    while ring.pending > 1 {
        ring.wait().expect("the ring works");
    }
    assert!(ring.listeners.len() < 10 && ring.left.is_empty(), "{} places", ring.listeners.len());
    client.send_to(b"query", first.local_addr().expect("bound")).expect("sent");
    assert_eq!(arrival(&mut ring).socket, Receiver::Listener(0), "the first was not touched");
}

#[test]
fn tokens_come_back_as_they_were() {
    let path = Path { slot: u32::MAX >> 2, generation: u32::MAX };
    for token in [Token::Listener(u16::MAX), Token::Send(127), Token::Path(path), Token::Cancel] {
        assert_eq!(Token::from_bits(token.to_bits()), token);
    }
}
