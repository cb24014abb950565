use std::sync::Arc;

use super::*;
use crate::settings::{InjectionSettings, Marker, MergeMode};
use crate::snapshot::Config;

fn config(settings: InjectionSettings) -> Config {
    Config::new(Arc::new(settings), vec![[172, 21, 0, 10].into()])
}

fn made(settings: InjectionSettings) -> Documents {
    documents(&config(settings), &Names::default()).expect("settings that a policy can carry out")
}

#[test]
fn expressions_use_parameters_that_exist_and_variables_that_come_before() {
    for merge in [MergeMode::Merge, MergeMode::Skip, MergeMode::Overwrite] {
        let Documents { policy, parameters, .. } =
            made(InjectionSettings { merge, marker: Marker::AnnotationAndLabel, ..Default::default() });
        let spec = &policy["spec"];
        let mut known = Vec::new();
        let mut used = Vec::new();
        let mut look = |expression: &str, known: &[String]| {
            for (prefix, is_parameter) in [("params.data.", true), ("variables.", false)] {
                for rest in expression.split(prefix).skip(1) {
                    let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
                    match is_parameter {
                        true => used.push(name),
                        false => assert!(known.contains(&name), "{name} is not known yet in {expression}"),
                    }
                }
            }
        };
        for variable in spec["variables"].as_array().expect("a list") {
            look(variable["expression"].as_str().expect("text"), &known);
            known.push(variable["name"].as_str().expect("text").to_owned());
        }
        look(spec["mutations"][0]["jsonPatch"]["expression"].as_str().expect("text"), &known);
        for condition in spec["matchConditions"].as_array().expect("a list") {
            // Conditions see no variables.
            look(condition["expression"].as_str().expect("text"), &[]);
        }
        used.sort();
        used.dedup();
        let data = parameters["data"].as_object().expect("an object");
        assert_eq!(used, data.keys().cloned().collect::<Vec<_>>(), "each parameter is used, and no other");
    }
}

#[test]
fn conditions_are_named_after_reasons_and_follow_the_settings() {
    let names = |settings| -> Vec<String> {
        let policy = made(settings).policy;
        let conditions = policy["spec"]["matchConditions"].as_array().expect("a list").clone();
        conditions.iter().map(|c| c["name"].as_str().expect("text").to_owned()).collect()
    };
    let usual = names(InjectionSettings::default());
    assert!(
        usual.iter().all(|name| crate::reason::Reason::parse(&name["not-".len()..]).is_some()),
        "{usual:?}"
    );
    assert!(!usual.contains(&"not-user-dns-config".to_owned()));
    assert!(
        names(InjectionSettings { merge: MergeMode::Skip, ..Default::default() })
            .contains(&"not-user-dns-config".to_owned())
    );
    let inject = crate::settings::SoftPlacement::Inject;
    assert!(
        !names(InjectionSettings { soft_placement: inject, ..Default::default() })
            .contains(&"not-virtual-node-possible".to_owned())
    );
}

#[test]
fn what_a_policy_cannot_do_is_refused() {
    for settings in [
        InjectionSettings { pod_opt_in: true, ..Default::default() },
        InjectionSettings { rollout_percent: 99, ..Default::default() },
        InjectionSettings { report_only: true, ..Default::default() },
    ] {
        assert!(documents(&config(settings.clone()), &Names::default()).is_err(), "{settings:?}");
    }
}

#[test]
fn parameters_follow_kube_dns() {
    let settings = || InjectionSettings {
        node_local: vec![[169, 254, 20, 10].into(), "fd00::53".parse().expect("an address")],
        ..Default::default()
    };
    let parameters = |kube_dns: &[&str]| {
        let kube_dns = kube_dns.iter().map(|text| text.parse().expect("an address")).collect();
        let data = parameters(&Config::new(Arc::new(settings()), kube_dns));
        (data["local"].clone(), data["upstream"].clone(), data["status"].clone())
    };
    let (local, upstream, first) = parameters(&["172.21.0.10", "fd00::a"]);
    assert_eq!((local.as_str(), upstream.as_str()), ("169.254.20.10", "172.21.0.10,fd00::a"));
    let (local, upstream, second) = parameters(&["fd00::a"]);
    assert_eq!((local.as_str(), upstream.as_str()), ("fd00::53", "fd00::a"));
    assert_ne!(first, second, "Pods show which configuration they have");
    assert_eq!(parameters(&[]).1, "", "unknown: nobody is injected");
}

#[test]
fn literals_hold_whatever_a_setting_holds() {
    assert_eq!(literals(["a", "b\"\\'\n"]), r#"["a", "b\"\\'\n"]"#);
}
