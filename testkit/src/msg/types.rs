//! Numbers and mnemonics of types, classes, codes and options.
//!
//! Only what tests name often; any other type is spelled `TYPEnnn`
//! (RFC 3597, section 5).

/// Types by number.
#[expect(missing_docs, reason = "the names are the documentation: they are the IANA registry's")]
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const RRSIG: u16 = 46;
    pub const ANY: u16 = 255;
}

/// Classes by number.
#[expect(missing_docs, reason = "the names are the documentation: they are the IANA registry's")]
pub mod class {
    pub const IN: u16 = 1;
    pub const CH: u16 = 3;
    pub const ANY: u16 = 255;
}

/// Opcodes by number.
#[expect(missing_docs, reason = "the names are the documentation: they are the IANA registry's")]
pub mod opcode {
    pub const QUERY: u8 = 0;
    pub const STATUS: u8 = 2;
    pub const NOTIFY: u8 = 4;
    pub const UPDATE: u8 = 5;
}

/// Response codes by number, the extended ones of EDNS included.
#[expect(missing_docs, reason = "the names are the documentation: they are the IANA registry's")]
pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BADVERS: u16 = 16;
    pub const BADCOOKIE: u16 = 23;
}

/// EDNS option codes.
#[expect(missing_docs, reason = "the names are the documentation: they are the IANA registry's")]
pub mod option_code {
    pub const NSID: u16 = 3;
    pub const CLIENT_SUBNET: u16 = 8;
    pub const COOKIE: u16 = 10;
    pub const TCP_KEEPALIVE: u16 = 11;
    pub const PADDING: u16 = 12;
    pub const EXTENDED_ERROR: u16 = 15;
}

const MNEMONICS: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (24, "SIG"),
    (25, "KEY"),
    (28, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (41, "OPT"),
    (43, "DS"),
    (44, "SSHFP"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (257, "CAA"),
];

/// The number of a type given by mnemonic or as `TYPEnnn`; panics otherwise.
pub fn type_number(text: &str) -> u16 {
    try_type_number(text).unwrap_or_else(|| panic!("'{text}' is no type the kit knows: write TYPEnnn"))
}

/// The mnemonic of a type, or `TYPEnnn`.
pub fn type_text(rtype: u16) -> String {
    match MNEMONICS.iter().find(|(number, _)| *number == rtype) {
        Some((_, text)) => (*text).to_string(),
        None => format!("TYPE{rtype}"),
    }
}

/// As [`type_number`], for text that a person wrote and that may be wrong.
pub fn try_type_number(text: &str) -> Option<u16> {
    if let Some((number, _)) = MNEMONICS.iter().find(|(_, mnemonic)| mnemonic.eq_ignore_ascii_case(text)) {
        return Some(*number);
    }
    text.strip_prefix("TYPE").and_then(|digits| digits.parse().ok())
}
