//! The scenarios, in the order in which they run.

mod certificates;
mod controller;
mod failure;
mod injection;
mod operator;
mod policy;

use std::pin::Pin;

use crate::cluster::Cluster;

type Scenario = for<'a> fn(&'a Cluster) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A function of a module, with its name.
macro_rules! scenarios {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((stringify!($name), |cluster| Box::pin($module::$name(cluster)))),*]
    };
}

/// All of them.
pub(crate) const ALL: &[(&str, Scenario)] = scenarios![
    injection::the_seeds_example_is_stored_byte_for_byte,
    injection::selectors_leave_out_what_the_table_leaves_out,
    injection::a_dry_run_shows_the_injection_and_stores_nothing,
    injection::a_namespace_labelled_a_moment_ago_is_injected,
    injection::a_webhook_without_selectors_injects_nobody_else,
    injection::pods_of_controllers_are_injected_in_the_requests_namespace,
    injection::another_webhook_behind_ours_changes_nothing_twice,
    injection::users_dns_config_is_merged_and_limits_reject_nobody,
    injection::a_new_address_of_kube_dns_is_for_new_pods,
    injection::the_audit_log_says_why,
    injection::the_servers_roles_are_enough,
    injection::owners_get_events,
    failure::a_dead_server_costs_nobody_a_pod,
    failure::a_stopped_server_costs_its_timeout_and_no_pod,
    failure::with_policy_fail_a_dead_server_is_refused_and_a_live_one_never_refuses,
    failure::a_restart_under_load_fails_no_pod,
    policy::the_golden_cases_come_out_as_the_webhook_decides,
    controller::the_policys_addresses_follow_the_cluster,
    certificates::leaf_and_authority_are_replaced_under_load_without_a_gap,
    certificates::the_servers_own_authority_rotates_under_load_without_a_gap,
    operator::the_commands_tell_the_truth_about_the_cluster,
    operator::uninstall_stops_injection_and_names_who_depends,
];
