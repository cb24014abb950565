//! Address ranges as Kubernetes writes them: `10.96.0.0/16`.

use std::net::IpAddr;

use crate::family::Family;

/// Of which family a range is. What is no range has none.
pub(super) fn family(range: &str) -> Option<Family> {
    let (base, _) = range.split_once('/')?;
    base.parse().ok().map(|base| Family::of(&base))
}

/// Whether a range holds an address. What is no range holds none.
pub(super) fn holds(range: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = range.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            bits <= 32
                && same_prefix(u128::from(base.to_bits()) << 96, u128::from(address.to_bits()) << 96, bits)
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            bits <= 128 && same_prefix(base.to_bits(), address.to_bits(), bits)
        }
        _ => false,
    }
}

/// Whether an address lies in the lower part of a range of Services, which the API server does not hand out by itself while the
/// upper part has some left: `min(max(16, size / 16), 256)` addresses.
pub(super) fn is_in_static_band(range: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = range.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let (first, wanted, width) = match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (base.to_bits().into(), address.to_bits().into(), 32),
        (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128_u32),
        _ => return false,
    };
    let size = 1_u128.checked_shl(width.saturating_sub(bits)).unwrap_or(u128::MAX);
    let band = (size / 16).clamp(16, 256);
    wanted.checked_sub(first).is_some_and(|offset: u128| offset <= band)
}

fn same_prefix(a: u128, b: u128, bits: u32) -> bool {
    // A shift by the whole width is no shift in Rust.
    (a ^ b).checked_shr(128 - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ranges_hold_what_they_hold() {
        for (range, address, wanted) in [
            ("169.254.20.10/32", "169.254.20.10", true),
            ("169.254.20.10/32", "169.254.20.11", false),
            ("169.254.0.0/16", "169.254.20.10", true),
            ("0.0.0.0/0", "169.254.20.10", true),
            ("0.0.0.0/0", "fd00::a", false),
            ("::/0", "fd00::a", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("10.0.0.0/33", "10.0.0.0", false),
            ("10.0.0.0", "10.0.0.0", false),
            ("x/8", "10.0.0.0", false),
        ] {
            assert_eq!(holds(range, ip(address)), wanted, "{range} {address}");
        }
    }

    #[test]
    fn the_static_band_is_the_lower_sixteenth_within_bounds() {
        for (range, address, wanted) in [
            ("10.96.0.0/16", "10.96.0.255", true),
            ("10.96.0.0/16", "10.96.1.0", true),
            ("10.96.0.0/16", "10.96.1.1", false),
            ("10.96.0.0/24", "10.96.0.16", true),
            ("10.96.0.0/24", "10.96.0.17", false),
            ("fd00::/112", "fd00::ff", true),
            ("fd00::/112", "fd00::1:0", false),
            ("10.96.0.0/16", "10.95.0.1", false),
        ] {
            assert_eq!(is_in_static_band(range, ip(address)), wanted, "{range} {address}");
        }
    }
}
