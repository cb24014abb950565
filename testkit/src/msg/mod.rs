//! DNS messages for tests: building queries, scripting responses, reading
//! replies.
//!
//! Messages are written byte by byte instead of through a DNS library,
//! because a test needs what a library prevents: the exact spelling of a
//! name, two OPT records, counts that lie. Not a validator: whatever a test
//! asks for is written.

mod name;
mod query;
mod rdata;
mod reply;
mod response;
mod types;
mod zone_line;

pub use name::{name_from_wire, name_to_wire, try_name_to_wire};
pub use query::Query;
pub use reply::{Opt, Question, Reply, Rr};
pub use response::Response;
pub use types::{class, opcode, option_code, rcode, rtype, try_type_number, type_number, type_text};
pub use zone_line::check_record;

pub(crate) use name::read_name;

/// The EDNS payload size used where a test asks for EDNS but names no size
/// (the DNS Flag Day 2020 value: fits an IPv6 packet without fragmentation).
pub const DEFAULT_EDNS_SIZE: u16 = 1232;

/// Length of the message header (RFC 1035, 4.1.1).
pub(crate) const HEADER_LEN: usize = 12;

#[cfg(test)]
mod tests;
