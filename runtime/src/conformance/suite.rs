//! The list of all rows, as a macro that makes one test of each.

/// Expands to one test per row, in a module per file, each against the given runtime:
///
/// ```ignore
/// use nodens_runtime_tokio::Tokio;
///
/// nodens_runtime::conformance_suite!(Tokio);
/// ```
///
/// A last test makes sure that no row was forgotten here.
#[macro_export]
macro_rules! conformance_suite {
    ($runtime:ident) => {
        $crate::conformance_rows! { $runtime; cacheability:
            a01_ad_bit_and_ttl_cap,
            a02_case_sensitivity,
            a03_truncated_answer_is_fetched_over_tcp,
            a03_truncated_answer_is_never_kept,
            a04_nxdomain_with_soa_is_kept,
            a05_nxdomain_without_soa_is_relayed,
            a06_servfail_is_kept_for_its_time,
            a07_notimp_is_kept_for_its_time,
            a08_expired_signature_is_relayed,
            a09_valid_signature_is_kept,
            a10_cd_is_kept_and_echoed,
            a15_dangling_cname_chain,
            a16_chain_ending_in_another_type,
            a17_mx_chain_without_mx,
            a18_mx_chain_with_mx,
            a19_dangling_signed_cname,
            a20_address_off_the_chain,
            a21_lone_cname_answers_any,
            a22_chain_with_address,
            a23_order_is_preserved,
            a24_cname_query,
            a25_two_targets,
            a26_two_targets_reversed,
            a27_cname_loop,
            a28_equal_cnames,
            a29_cname_with_soa_is_nodata,
            a30_nxdomain_behind_a_cname,
            a31_refused_is_a_failure_of_one_second,
            a32_formerr_is_relayed,
            a33_nxdomain_without_soa_is_a_denial_that_does_not_fit,
            a34_a36_referral_is_relayed,
            a35_signed_referral_is_relayed,
            a37_empty_noerror_is_kept_for_a_moment,
            a38_data_in_additional_only,
            a39_spoofed_name_is_ignored,
            a40_spoofed_type_is_ignored,
            a41_reply_that_is_a_query_is_ignored,
            a42_other_classes_are_refused_and_disturb_nothing,
            a43_zero_ttl_without_a_floor,
            a44_zero_ttl_is_raised_to_the_floor,
            a45_cap_above_the_default,
            a51_cap_beats_the_floor,
            a54_minimum_of_the_soa_counts,
            a56_cap_on_a_long_ttl,
            a57_floor_under_a_short_ttl,
            a58_ttls_are_flattened,
            a59_ttls_of_what_is_not_kept_stay,
            a60_ttls_fall_with_time,
            a62_entries_stay_within_the_bound,
            a64_only_the_zones_of_cache_are_kept,
            a65_transfers_and_other_opcodes_are_no_business_of_ours,
        }
        $crate::conformance_rows! { $runtime; keys:
            b01_type_separates,
            b02_do_separates,
            b03_cd_separates,
            b04_cd_and_do_separate,
            b05_cd_do_and_type_separate,
            b06_aa_in_the_query_does_not_separate,
            b07_ad_is_learned_for_whoever_asks_later,
            b08_ad_is_kept_from_who_did_not_ask,
            b11_signatures_go_to_those_who_want_them,
            b12_x6_the_upstream_s_opt_is_never_kept,
            b13_do_is_echoed_and_the_size_is_ours,
            b14_no_opt_to_who_sent_none,
            b15_opt_is_the_last_record,
            b16_ad_only_for_those_who_asked,
            b17_aa_is_never_set,
            b18_ra_is_the_upstream_s,
            b19_rd_is_echoed_on_a_hit,
            b19_r15_a_miss_without_rd_is_forwarded_so_and_not_kept,
            b20_ids_are_the_client_s,
            b21_x5_spelling_is_the_client_s,
            b22_l12_known_options_are_not_echoed,
            b23_unknown_options_are_not_echoed,
            b24_client_subnets_are_stripped,
            b24_r13_an_answer_for_a_subnet_is_not_kept,
        }
        $crate::conformance_rows! { $runtime; front_end:
            l01_thirty_addresses_fit_into_512_bytes,
            l14_a_plain_query_is_answered,
            l13_edns_version_1_is_badvers,
            l16_a_zone_without_forward_is_refused,
            l18_a_name_outside_all_zones_is_refused,
            l19_chaos_is_refused,
            l20_no_question_is_formerr,
            l20_two_questions_are_formerr,
            l20_a_question_that_is_not_there_is_formerr,
            l21_all_other_opcodes_are_notimp,
            l22_a_response_is_met_with_silence,
            l22_eleven_bytes_are_met_with_silence,
            l22_a_response_with_another_opcode_is_met_with_silence,
            l22_our_own_answer_sent_back_is_met_with_silence,
            l23_two_opts_are_formerr,
            l23_an_opt_that_is_not_the_root_s_is_formerr,
            l24_a_query_of_700_bytes_is_answered,
            l24_a_query_of_4096_bytes_is_answered,
            l26_wildcard_socket_answers_from_the_address_asked,
            l26_wildcard_socket_answers_from_the_address_asked_over_ipv6,
            bad_input_over_udp_is_answered_with_errors_and_harms_nobody,
            bad_input_over_tcp_is_answered_with_errors_and_harms_nobody,
            x4_the_size_of_each_client_decides_about_truncation,
            l02_l05_l06_truncation_fits_every_size,
            l02_without_edns_512_bytes_are_the_limit,
            l03_rfc2181_9_additional_data_may_be_missing_without_tc,
            l04_our_maximum_holds_for_a_client_that_takes_more,
            l07_an_answer_that_fits_exactly_is_whole,
            g22_r6_an_extended_rcode_is_servfail_without_edns,
            odd_but_legal_questions_are_forwarded,
            udp_and_tcp_share_the_cache,
        }
        $crate::conformance_rows! { $runtime; forged:
            forged_01_wrong_id,
            forged_02_other_source_port,
            forged_02_other_source_address,
            forged_03_other_name,
            forged_04_other_type,
            forged_05_other_class,
            forged_05_answer_of_another_class,
            forged_06_answer_without_a_question,
            forged_07_header_only_noerror,
            forged_08_header_only_refused,
            forged_09_a_query,
            forged_10_other_opcode,
            forged_11_unparsable_body,
            forged_11_name_that_points_to_itself,
            forged_11_short_and_cut_messages,
            forged_11_broken_opt,
            forged_12_unrelated_record_poisons_nobody,
            forged_13_cname_target_is_not_poisoned,
            forged_13_additional_data_poisons_nobody,
            many_forgeries_of_all_kinds_change_nothing,
            a_forgery_is_answered_by_asking_over_tcp_as_well,
            health_is_not_charged_for_forgeries,
            health_is_not_charged_where_the_upstream_has_no_tcp,
            a_duplicated_answer_is_given_once,
            a_late_forgery_changes_nothing,
            a_late_answer_is_used_while_somebody_waits,
            bytes_behind_an_answer_are_cut_off,
        }
        $crate::conformance_rows! { $runtime; failures:
            f1_a_stopped_upstream,
            f2_a_silent_upstream,
            f2_one_of_two_upstreams_is_silent,
            f1_one_of_two_upstreams_is_gone,
            x2_a_failed_lookup_fails_everybody_once_and_asks_no_more_often,
            x3_a_failure_is_remembered_for_a_second,
            x3_a_good_answer_in_the_zone_ends_it_early,
            f6_a_silent_upstream_is_given_up_within_the_hard_cap,
            ede_is_for_clients_that_speak_edns,
            ede_of_the_upstream_is_passed_on,
            rfc6891_7_formerr_to_edns_is_asked_again_without_and_remembered,
            servfail_of_one_upstream_is_the_answer,
            h10_h24_a_truncated_answer_is_fetched_whole,
            h10_a_truncated_answer_that_fits_is_given_whole,
            h24_a_truncated_message_may_be_broken,
            h_tcp_that_is_closed_at_once,
            h_tcp_that_is_reset,
            h_tcp_that_ends_inside_a_message,
            h_tcp_that_answers_something_else,
            h_tcp_that_sends_a_length_of_zero,
            h_tcp_that_takes_its_time_is_waited_for,
            h_tcp_byte_by_byte_is_read,
            a_lost_datagram_is_sent_again,
            x1_too_many_waiters_for_one_question,
            x1_too_many_waiters_in_all,
            x1_too_many_lookups,
            upstreams_that_do_everything_wrong_cost_no_client_its_answer,
        }
        $crate::conformance_rows! { $runtime; selection:
            g01_round_robin_takes_turns,
            g02_random_asks_all,
            g03_sequential_asks_the_first,
            g07_one_refusing_upstream_is_tried_twice,
            g08_three_refusing_upstreams_are_tried_twice_each,
            g13_g14_the_first_answer_counts_whatever_it_says,
            g17_an_upstream_that_drops_every_other_query_costs_no_answer,
            h19_h20_rubbish_before_the_answer,
            h27_every_question_leaves_from_another_port,
            h28_an_upstream_that_closes_after_each_answer,
            h29_an_upstream_that_resets_after_each_answer,
            j01_one_probe_after_a_loss_and_then_none,
            j03_probes_without_recursion,
            j06_without_max_fails_there_are_no_probes,
            j07_probes_ask_for_the_name_that_is_set,
            j05_j14_down_after_failed_probes_and_well_with_any_rcode,
        }
        $crate::conformance_rows! { $runtime; transport:
            h01_h05_without_an_option_it_goes_as_it_came,
            h02_h04_h06_h08_force_tcp_forces_tcp,
            h03_h07_prefer_udp_prefers_udp,
            h09_prefer_udp_and_an_answer_beyond_512_bytes,
            h09_prefer_udp_and_an_answer_cut_off_at_512_bytes,
            h11_h12_force_tcp_and_an_answer_beyond_512_bytes,
            h25_prefer_udp_follows_tc_for_a_client_over_tcp,
            h28_idle_connections_that_the_upstream_closes,
            h28_connections_that_the_upstream_closes_while_we_ask,
            h29_idle_connections_that_the_upstream_resets,
            h28_a_connection_that_is_closed_with_a_query_out,
            h29_a_connection_that_is_reset_with_a_query_out,
            h28_s19_a_connection_that_ends_inside_a_message,
            rfc7766_7_answers_out_of_order_on_one_connection,
            g20_h26_an_answer_to_something_else_is_not_taken,
            h23_the_id_upstream_is_ours_and_the_client_s_comes_back,
            g04_one_connect_attempt_is_one,
            g05_ten_connect_attempts_are_ten_and_paced,
            g11_failover_ends_after_the_last_upstream,
            g12_failover_goes_on_to_the_good_answer,
            g13_g14_without_failover_the_first_answer_counts,
            g19_excepted_names_stay_here,
            g21_two_silent_upstreams_and_a_hard_deadline,
            i03_an_idle_connection_is_given_up_after_its_time,
            i08_i09_a_busy_connection_grows_old_too,
            i04_i07_i10_stopping_closes_every_connection_and_opens_none,
            j02_probes_go_over_tcp_where_queries_do,
            j04_one_probe_when_only_the_query_is_lost,
            j08_failfast_asks_nobody_while_all_are_down,
            j09_without_failfast_one_query_is_tried,
            s19_an_upstream_that_accepts_and_never_answers,
            s19_an_upstream_that_answers_one_byte_a_second,
            s19_an_upstream_that_interleaves_its_answers,
            s19_an_upstream_that_answers_twice,
            s19_an_upstream_that_answers_again_later,
            s19_an_upstream_that_closes_after_one_answer,
            s19_a_crowd_meets_an_upstream_that_closes_after_one_answer,
            s19_an_upstream_that_takes_its_time_and_closes_after_one_answer,
            s19_an_upstream_that_answers_under_an_unknown_id_first,
            a_serial_upstream_under_500_misses_a_second,
        }
        $crate::conformance_rows! { $runtime; load:
            x1_64_equal_queries_are_one_lookup,
            x1_1000_equal_queries_are_one_lookup_per_worker,
            both_workers_serve,
            a_retransmission_is_answered_once,
            a_thousand_different_questions_are_all_answered,
            slow_lookups_hold_up_nobody,
            max_concurrent_refuses,
        }
        $crate::conformance_rows! { $runtime; tcp:
            l25_answers_come_as_they_are_ready,
            l25_misses_overtake_each_other,
            several_queries_in_one_segment_are_all_answered,
            more_slow_queries_than_may_be_pipelined_are_all_answered,
            a_query_in_single_bytes_is_answered_and_holds_up_nobody,
            messages_that_straddle_segments_are_read,
            half_open_connections_hold_up_nobody,
            a_client_that_says_no_more_gets_its_answer,
            a_client_that_asks_a_lot_and_says_no_more_gets_all_answers,
            a_client_that_leaves_early_harms_nobody,
            a_length_that_is_no_message_ends_the_connection,
            the_largest_query_is_answered,
            the_largest_answer_is_relayed_whole_and_not_kept,
            a_client_that_does_not_read_is_not_read_from,
            over_the_cap_the_oldest_idle_connection_makes_room,
            one_source_cannot_take_all_connections,
            ten_thousand_idle_connections_hold_up_nobody,
        }
        $crate::conformance_rows! { $runtime; reload:
            a_new_configuration_loses_no_query_and_ends_the_old_upstream_s_say,
            what_is_in_flight_is_asked_again_under_the_new_configuration,
            m82_the_cache_stays,
            listeners_come_and_go_while_others_serve,
        }
        $crate::conformance_rows! { $runtime; contract:
            an_idle_worker_lives_and_does_not_spin,
            a_query_event_comes_out_of_the_channel,
            sockets_to_upstreams_are_closed_in_the_end,
            stopping_finishes_what_is_in_flight_and_refuses_the_rest,
            the_last_worker_serves_until_nothing_is_in_flight,
            a_last_worker_that_is_busy_winds_down_and_refuses_in_the_end,
            stopping_does_not_wait_beyond_its_deadline,
            a_panic_ends_the_worker_and_comes_out_of_join,
        }

        #[test]
        fn every_row_is_in_the_suite() {
            $crate::conformance::suite::assert_complete();
        }
    };
}

/// One test for each of the rows of a module.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_rows {
    ($runtime:ident; $module:ident: $($row:ident),+ $(,)?) => {
        mod $module {
            use super::$runtime;
            $(
                #[test]
                fn $row() {
                    $crate::conformance::$module::$row::<$runtime>();
                }
            )+
        }
    };
}

const FILES: [(&str, &str); 11] = [
    ("cacheability", include_str!("cacheability.rs")),
    ("keys", include_str!("keys.rs")),
    ("front_end", include_str!("front_end.rs")),
    ("forged", include_str!("forged.rs")),
    ("failures", include_str!("failures.rs")),
    ("selection", include_str!("selection.rs")),
    ("transport", include_str!("transport.rs")),
    ("load", include_str!("load.rs")),
    ("tcp", include_str!("tcp.rs")),
    ("reload", include_str!("reload.rs")),
    ("contract", include_str!("contract.rs")),
];

/// Modules of the suite that hold no rows.
const WITHOUT_ROWS: [&str; 3] = ["bench", "harness", "suite"];

/// Rows A of semantics.md that a runtime cannot show: A11 to A14 and A46 need options that are refused so far, the others
/// need a clock of their own (mode V, the core's tests).
const A_ELSEWHERE: [u32; 14] = [11, 12, 13, 14, 46, 47, 48, 49, 50, 52, 53, 55, 61, 63];
/// Only in a mode of CoreDNS' own; several stanzas of `forward`; configuration; pure; `max_concurrent`, which is a row of load.
const G_ELSEWHERE: [u32; 6] = [6, 9, 10, 15, 16, 18];
/// Pure; upstreams over TLS and HTTPS, which are not there yet.
const H_ELSEWHERE: [u32; 8] = [13, 14, 15, 16, 17, 18, 21, 22];
/// Pure (6 and 7 are here all the same); `maxtcpqueries`, which is not there yet; the agent's end-to-end tests.
const L_ELSEWHERE: [u32; 6] = [8, 9, 10, 11, 15, 17];
/// What follows from stale entries and prefetch.
const B_ELSEWHERE: [u32; 2] = [9, 10];

/// How the names of rows begin that must be there, whatever else is.
fn required() -> Vec<String> {
    let range = |letter: &str, numbers: std::ops::RangeInclusive<u32>, elsewhere: &[u32]| {
        let here = numbers.filter(|number| !elsewhere.contains(number));
        here.map(|number| format!("{letter}{number:02}")).collect::<Vec<_>>()
    };
    [
        range("a", 1..=65, &A_ELSEWHERE),
        range("b", 1..=24, &B_ELSEWHERE),
        range("g", 1..=22, &G_ELSEWHERE),
        range("h", 1..=29, &H_ELSEWHERE),
        range("i", 4..=4, &[]),
        range("j", 1..=9, &[]),
        range("l", 1..=26, &L_ELSEWHERE),
        range("forged_", 1..=13, &[]),
    ]
    .concat()
}

/// Whether a row is about this one, among others: `a34_a36_referral_is_relayed` is about `a34` and `a36`.
fn is_about(row: &str, wanted: &str) -> bool {
    let numbered = |word: &&str| word.bytes().any(|b| b.is_ascii_digit());
    let mut words = row.split('_').take_while(numbered);
    match wanted.strip_prefix("forged_") {
        Some(number) => {
            row.strip_prefix("forged_").is_some_and(|rest| rest.split('_').next() == Some(number))
        }
        None => words.any(|word| word == wanted),
    }
}

/// Panics if a row is missing: in the list above (it would never run), or altogether.
pub fn assert_complete() {
    let list = include_str!("suite.rs");
    let modules =
        include_str!("mod.rs").lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in modules.filter(|module| !WITHOUT_ROWS.contains(module)) {
        assert!(FILES.iter().any(|(file, _)| *file == module), "nobody looks into {module}.rs for rows");
    }
    let mut all_listed = Vec::new();
    for (module, text) in FILES {
        let block =
            list.split(&format!("$runtime; {module}:")).nth(1).and_then(|rest| rest.split('}').next());
        let listed: Vec<_> = block.unwrap_or_default().split(',').map(str::trim).collect();
        let rows =
            text.lines().filter_map(|line| line.strip_prefix("pub fn ")?.strip_suffix("<R: Runtime>() {"));
        for row in rows {
            assert!(listed.contains(&row), "{module}::{row} is not in the list of the suite");
        }
        all_listed.extend(listed);
    }
    for wanted in required() {
        assert!(all_listed.iter().any(|row| is_about(row, &wanted)), "no row shows {wanted} of semantics.md");
    }
}
