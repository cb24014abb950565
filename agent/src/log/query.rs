//! One answered query in CoreDNS' common format:
//! `{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration}`.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;

use nodens_core::{QueryEvent, Transport};

use super::names;

/// The size that a client over TCP can take, as CoreDNS prints it.
const TCP_SIZE: u16 = u16::MAX;

/// The flags of an answer, in the order in which CoreDNS lists them: bit of header bytes 2 and 3 (RFC 1035 §4.1.1, RFC 4035
/// §3), name.
const FLAGS: [(u16, &str); 8] = [
    (1 << 15, "qr"),
    (1 << 10, "aa"),
    (1 << 9, "tc"),
    (1 << 8, "rd"),
    (1 << 7, "ra"),
    (1 << 6, "z"),
    (1 << 5, "ad"),
    (1 << 4, "cd"),
];

/// Displays an event in the common format.
#[derive(Copy, Clone, Debug)]
pub struct Common<'a>(pub &'a QueryEvent);

impl Display for Common<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let event = self.0;
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let peer = SocketAddr::new(event.client.peer.ip().to_canonical(), event.client.peer.port());
        let (proto, size) = match event.client.transport() {
            Transport::Udp => ("udp", event.udp_size),
            Transport::Tcp => ("tcp", TCP_SIZE),
        };
        write!(
            f,
            "{peer} - {} \"{} {} {} {proto} {} {} {size}\" {} ",
            event.id,
            names::of_type(event.qtype),
            names::of_class(event.qclass),
            event.qname,
            event.query_len,
            event.do_bit,
            names::of_rcode(event.rcode),
        )?;
        for (i, (_, name)) in FLAGS.iter().filter(|(bit, _)| event.flags & bit != 0).enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            f.write_str(name)?;
        }
        // The shortest decimal number that is this duration, never with an exponent: as Go prints it.
        write!(f, " {} {}s", event.response_len, event.duration.as_secs_f64())
    }
}
