//! DNS messages as bytes: views that check before they read, and builders that cannot overrun.
//!
//! Nothing here allocates per record on the way in, and nothing trusts a count or a pointer (RFC 1035 §4). What a
//! message *means* (may it be cached, does it answer the question) is decided elsewhere.

mod edns;
mod header;
mod message;
mod name;
mod query;
mod stream;

pub use edns::{
    EDE_CACHED_ERROR, EDE_NETWORK_ERROR, EDE_NO_REACHABLE_AUTHORITY, EDE_NOT_READY, Edns, OPT_LEN,
    UpstreamOptions, put_opt, read_options,
};
pub use header::{Flags, HEADER_LEN, Header, Rcode, get_u16, get_u32, put_u16};
pub use message::{Message, MessageFault, Record, Section, rtype};
pub use name::{NAME_LEN_MAX, Name, NameError, names_equal};
pub use query::{QueryFault, QueryView, Question};
pub use stream::{FramingFault, MESSAGE_LEN_MAX, StreamFraming};
