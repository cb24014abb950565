//! EDNS(0), hop by hop: what we read of a client's OPT record, and the OPT records we write (RFC 6891).
//!
//! Options are never copied from one side to the other: to the two legs of a forwarder they are two separate
//! transactions (RFC 6891 §6.2.6), and echoing a client's cookie or padding is a known mistake (semantics.md B22).

use super::header::{get_u16, put_u16};

/// Length in bytes of an OPT record without options.
pub const OPT_LEN: usize = 11;

/// Extended DNS error "Cached Error" (RFC 8914 §4.14).
pub const EDE_CACHED_ERROR: u16 = 13;
/// Extended DNS error "Not Ready" (RFC 8914 §4.15).
pub const EDE_NOT_READY: u16 = 14;
/// Extended DNS error "No Reachable Authority" (RFC 8914 §4.23).
pub const EDE_NO_REACHABLE_AUTHORITY: u16 = 22;
/// Extended DNS error "Network Error" (RFC 8914 §4.24).
pub const EDE_NETWORK_ERROR: u16 = 23;

/// Option code of extended DNS errors.
const OPTION_EDE: u16 = 15;
/// Option code of client subnets (RFC 7871).
const OPTION_ECS: u16 = 8;
/// The DO bit in the low half of the OPT record's TTL field.
const DO: u16 = 0x8000;

/// What we use of an OPT record.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Edns {
    /// The sender's UDP payload size, as sent.
    pub udp_size: u16,
    /// The upper eight bits of the RCODE.
    pub rcode_high: u8,
    /// 0 is the only version there is.
    pub version: u8,
    /// DNSSEC OK.
    pub do_bit: bool,
}

impl Edns {
    /// Reads the CLASS and TTL fields of an OPT record.
    pub(super) fn from_fields(class: u16, ttl: u32) -> Self {
        Edns {
            udp_size: class,
            rcode_high: (ttl >> 24) as u8,
            version: (ttl >> 16) as u8,
            do_bit: ttl as u16 & DO != 0,
        }
    }
}

/// What we read of an upstream's options.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct UpstreamOptions {
    /// The first extended error (RFC 8914), to be passed on to clients that speak EDNS.
    pub extended_error: Option<u16>,
    /// The answer was tailored to a client subnet although we sent none (RFC 7871 §7.3): good for this client only.
    pub scoped: bool,
}

/// Reads the options in an OPT record's RDATA; stops at the first that does not fit.
pub fn read_options(mut rdata: &[u8]) -> UpstreamOptions {
    let mut options = UpstreamOptions::default();
    while rdata.len() >= 4 {
        let (code, len) = (get_u16(rdata, 0), usize::from(get_u16(rdata, 2)));
        let Some(value) = rdata.get(4..4 + len) else { break };
        match code {
            OPTION_EDE if len >= 2 && options.extended_error.is_none() => {
                options.extended_error = Some(get_u16(value, 0));
            }
            OPTION_ECS if len >= 4 => options.scoped |= value[3] > 0,
            _ => {}
        }
        rdata = &rdata[4 + len..];
    }
    options
}

/// Writes an OPT record at `at` and returns where it ends; `out` must have room for [`OPT_LEN`] bytes and 6 more if
/// there is an extended error.
pub fn put_opt(out: &mut [u8], at: usize, edns: Edns, extended_error: Option<u16>) -> usize {
    out[at] = 0;
    put_u16(out, at + 1, super::rtype::OPT);
    put_u16(out, at + 3, edns.udp_size);
    out[at + 5] = edns.rcode_high;
    out[at + 6] = edns.version;
    put_u16(out, at + 7, if edns.do_bit { DO } else { 0 });
    let Some(code) = extended_error else {
        put_u16(out, at + 9, 0);
        return at + OPT_LEN;
    };
    put_u16(out, at + 9, 6);
    put_u16(out, at + 11, OPTION_EDE);
    put_u16(out, at + 13, 2);
    put_u16(out, at + 15, code);
    at + OPT_LEN + 6
}
