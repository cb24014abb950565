//! Types, classes and RCODEs by name; numbers without a name as RFC 3597 §5 spells them.

use std::borrow::Cow;

/// IANA's registry of types, without those that were never used.
const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (24, "SIG"),
    (25, "KEY"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (104, "NID"),
    (105, "L32"),
    (106, "L64"),
    (107, "LP"),
    (108, "EUI48"),
    (109, "EUI64"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (32_768, "TA"),
    (32_769, "DLV"),
];

const CLASSES: &[(u16, &str)] = &[(1, "IN"), (3, "CH"), (4, "HS"), (254, "NONE"), (255, "ANY")];

const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (16, "BADVERS"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (19, "BADMODE"),
    (20, "BADNAME"),
    (21, "BADALG"),
    (22, "BADTRUNC"),
    (23, "BADCOOKIE"),
];

/// `A`, or `TYPE65280`.
pub(super) fn of_type(number: u16) -> Cow<'static, str> {
    find(TYPES, number).unwrap_or_else(|| format!("TYPE{number}").into())
}

/// `IN`, or `CLASS42`.
pub(super) fn of_class(number: u16) -> Cow<'static, str> {
    find(CLASSES, number).unwrap_or_else(|| format!("CLASS{number}").into())
}

/// `NOERROR`, or the number as it is.
pub(super) fn of_rcode(number: u16) -> Cow<'static, str> {
    find(RCODES, number).unwrap_or_else(|| number.to_string().into())
}

fn find(table: &'static [(u16, &'static str)], number: u16) -> Option<Cow<'static, str>> {
    table.binary_search_by_key(&number, |row| row.0).ok().map(|at| Cow::Borrowed(table[at].1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_so_that_every_row_is_found() {
        for table in [TYPES, CLASSES, RCODES] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        }
        assert_eq!(
            (of_type(28).as_ref(), of_class(1).as_ref(), of_rcode(3).as_ref()),
            ("AAAA", "IN", "NXDOMAIN")
        );
    }

    #[test]
    fn rfc3597_numbers_without_a_name() {
        assert_eq!(
            (of_type(65_280).as_ref(), of_class(42).as_ref(), of_rcode(42).as_ref()),
            ("TYPE65280", "CLASS42", "42")
        );
    }
}
