//! The rows of the table, one by one, with the spans of a real cluster.

use super::*;

const TIMES: Times = Times { ca_life_s: 9_000, leaf_life_s: 300, settle_s: 60, skew_s: 30 };

fn authority(name: u8, from_s: u64) -> Authority {
    let certificate =
        Trusted { der: Arc::from([name]), not_before_s: from_s, not_after_s: from_s + TIMES.ca_life_s };
    Authority { certificate, key_pem: Arc::from("secret") }
}

fn held(active: Authority) -> Held {
    Held { active, next: None, previous: Vec::new(), retire_at_s: None }
}

fn live(version: &str, trusted: &[&Authority]) -> Live {
    let bundle = trusted.iter().map(|one| one.certificate.clone()).collect();
    Live { version: version.into(), bundles: vec![Some(bundle)] }
}

fn look<'a>(now_s: u64, held: Option<&'a Held>, live: Option<&'a Live>) -> Look<'a> {
    Look { began_s: now_s, ended_s: now_s, held, live }
}

fn step(now_s: u64, held: Option<&Held>, live: Option<&Live>, memory: &mut Memory) -> Step {
    decide(&look(now_s, held, live), &TIMES, memory)
}

#[test]
fn row_1_founds_what_is_missing_or_expired_and_keeps_what_is_trusted() {
    let (old, new) = (authority(1, 0), authority(2, 9_000));
    let mut memory = Memory::default();
    assert_eq!(step(0, None, None, &mut memory), Step::Found);
    let expired = held(old.clone());
    let trusted = live("1", &[&old, &authority(3, 5_000)]);
    assert_eq!(step(8_999, Some(&expired), Some(&trusted), &mut memory), Step::Publish);
    assert_eq!(step(9_000, Some(&expired), Some(&trusted), &mut memory), Step::Found);
    let founded = apply(Step::Found, &look(9_000, Some(&expired), Some(&trusted)), &TIMES, Some(new.clone()));
    let founded = founded.expect("the Secret is written");
    assert_eq!((&founded.active, &founded.next, founded.retire_at_s), (&new, &None, None));
    // What has expired need not be trusted any more.
    assert_eq!(founded.previous, [authority(3, 5_000).certificate]);
}

#[test]
fn row_1_keeps_a_few_of_what_somebody_wrote() {
    let many: Vec<Authority> = (0..20).map(|name| authority(name, 0)).collect();
    let trusted = live("1", &many.iter().collect::<Vec<_>>());
    let founded = apply(Step::Found, &look(1, None, Some(&trusted)), &TIMES, Some(authority(99, 1)));
    assert_eq!(founded.expect("the Secret is written").previous.len(), PREVIOUS_MAX);
}

#[test]
fn row_2_publishes_what_is_missing_and_takes_out_what_is_too_much() {
    let (one, other) = (authority(1, 0), authority(2, 0));
    let held = held(one.clone());
    let mut memory = Memory::default();
    for live in [
        live("1", &[]),
        live("1", &[&other]),
        live("1", &[&one, &other]),
        Live { version: "1".into(), bundles: vec![Some(vec![one.certificate.clone()]), Some(Vec::new())] },
        Live { version: "1".into(), bundles: vec![None] },
    ] {
        assert_eq!(step(1, Some(&held), Some(&live), &mut memory), Step::Publish, "{live:?}");
    }
    assert_eq!(step(1, Some(&held), Some(&live("1", &[&one])), &mut memory), Step::Rest);
    assert_eq!(step(1, Some(&held), None, &mut memory), Step::Rest, "there is nowhere to publish");
}

#[test]
fn row_3_prepares_at_two_thirds_and_replaces_a_next_that_expired() {
    let (one, two) = (authority(1, 0), authority(2, 100));
    let (mut held, mut memory) = (held(one.clone()), Memory::default());
    let trusted = live("1", &[&one]);
    assert_eq!(step(5_999, Some(&held), Some(&trusted), &mut memory), Step::Rest);
    assert_eq!(step(6_000, Some(&held), Some(&trusted), &mut memory), Step::Prepare);
    // One rotation at a time.
    held.previous = vec![two.certificate.clone()];
    held.retire_at_s = Some(7_000);
    assert_eq!(step(6_000, Some(&held), Some(&live("2", &[&one, &two])), &mut memory), Step::Rest);
    let young = authority(3, 5_000);
    let stuck = Held { next: Some(two.clone()), ..self::held(young.clone()) };
    assert_eq!(step(9_100, Some(&stuck), Some(&live("3", &[&young, &two])), &mut memory), Step::Prepare);
}

#[test]
fn row_4_switches_when_the_configuration_has_been_the_same_for_long_enough() {
    let (one, two) = (authority(1, 0), authority(2, 6_000));
    let (mut held, mut memory) = (held(one.clone()), Memory::default());
    held.next = Some(two.clone());
    assert_eq!(step(6_000, Some(&held), Some(&live("1", &[&one])), &mut memory), Step::Publish);
    assert_eq!(step(6_001, Some(&held), Some(&live("2", &[&one, &two])), &mut memory), Step::Rest);
    assert_eq!(step(6_060, Some(&held), Some(&live("2", &[&one, &two])), &mut memory), Step::Rest);
    // Somebody touched it: it counts from there again.
    assert_eq!(step(6_061, Some(&held), Some(&live("3", &[&one, &two])), &mut memory), Step::Rest);
    assert_eq!(step(6_121, Some(&held), Some(&live("3", &[&one, &two])), &mut memory), Step::Switch);
    let switched = apply(Step::Switch, &look(6_121, Some(&held), None), &TIMES, None);
    let switched = switched.expect("the Secret is written");
    assert_eq!((&switched.active, &switched.next), (&two, &None));
    assert_eq!((switched.previous.as_slice(), switched.retire_at_s), (&[one.certificate][..], None));
}

#[test]
fn rows_5_and_6_forget_the_old_one_when_all_that_it_signed_has_expired() {
    let (one, two) = (authority(1, 0), authority(2, 6_000));
    let (mut held, mut memory) = (held(two.clone()), Memory::default());
    held.previous = vec![one.certificate.clone()];
    let trusted = live("1", &[&two, &one]);
    assert_eq!(step(6_200, Some(&held), Some(&trusted), &mut memory), Step::Schedule);
    let seen = Look { began_s: 6_200, ended_s: 6_203, held: Some(&held), live: Some(&trusted) };
    let held = apply(Step::Schedule, &seen, &TIMES, None).expect("the Secret is written");
    assert_eq!(held.retire_at_s, Some(6_203 + TIMES.leaf_life_s + TIMES.skew_s));
    assert_eq!(step(6_532, Some(&held), Some(&trusted), &mut memory), Step::Rest);
    assert_eq!(step(6_533, Some(&held), Some(&trusted), &mut memory), Step::Retire);
    let held = apply(Step::Retire, &look(6_533, Some(&held), None), &TIMES, None);
    assert_eq!(held.expect("the Secret is written").trusted(), [&two.certificate]);
}

#[test]
fn a_leaf_is_renewed_at_two_thirds_and_moves_only_to_what_is_trusted() {
    let (one, two) = (authority(1, 0), authority(2, 0));
    let (held, mut memory) = (held(two.clone()), Memory::default());
    let leaf =
        |issuer: &Authority| Leaf { issuer: issuer.certificate.clone(), from_s: 1_000, not_after_s: 1_300 };
    let mut wants = |now_s, live: Option<&Live>, leaf: Option<&Leaf>| {
        let look = look(now_s, Some(&held), live);
        decide(&look, &TIMES, &mut memory);
        wants_leaf(&look, &TIMES, &memory, leaf)
    };
    let (own, old) = (leaf(&two), leaf(&one));
    assert!(wants(1_000, None, None), "none at all is worse than one that is not trusted yet");
    assert!(!wants(1_199, None, Some(&own)) && wants(1_200, None, Some(&own)));
    let both = live("1", &[&one, &two]);
    assert!(!wants(1_001, Some(&both), Some(&old)), "trusted, but not by every API server yet");
    assert!(wants(1_061, Some(&both), Some(&old)), "settled");
    assert!(wants(1_200, Some(&live("2", &[&one, &two])), Some(&old)), "due, and trusted");
    assert!(!wants(1_200, Some(&live("3", &[&one])), Some(&old)), "due, but not trusted");
    assert!(wants(1_002, Some(&live("4", &[&two])), Some(&old)), "the old one is not trusted any more");
    assert!(wants(1_300, Some(&live("5", &[&one])), Some(&old)), "expired");
    let end = Leaf::end_s(&look(8_900, Some(&held), None), &TIMES, &two.certificate);
    assert_eq!(end, 9_000, "not beyond its issuer");
}

#[test]
fn keys_do_not_show() {
    assert!(!format!("{:?}", held(authority(1, 0))).contains("secret"));
}
