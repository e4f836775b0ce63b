//! The contract of the store.

mod audit;
mod batches;
mod checks;
mod completion;
mod connection;
mod datasets;
mod dead_letters;
mod events;
mod fixture;
mod fixtures;
mod holds;
mod idempotency;
mod keys;
mod maintenance;
mod observation;
mod quotas;
mod rejects;
mod rows;
mod steps;
mod tenants;
mod tokens;
mod uploads;
mod validation;

use self::checks::{REPLAY, STORED, check_sample_rows, check_status, find, rows};
use self::fixture::{Relation, StoreFixture};
use self::fixtures::{Postgres, Sqlite};
use self::steps::{
    begin, complete, end_well, fail, failure, new_upload, remove_all, seal, set_back, store_new,
};

macro_rules! contract {
    ($adapter:ident on $fixture:ident) => {
        mod $adapter {
            tests! { $fixture in uploads {
                records {
                    a_new_upload_is_recorded_with_every_given_field
                    creating_an_existing_id_is_a_conflict
                    an_upload_is_sealed_once
                    a_repeated_seal_with_the_same_totals_succeeds
                    a_seal_replaces_the_dialect_only_if_it_has_one
                    a_failure_of_the_intake_keeps_a_sealed_upload
                    a_failed_upload_is_not_sealed
                    a_failure_is_recorded_with_its_position
                    an_upload_ends_once
                    a_call_for_another_epoch_changes_nothing
                    figures_on_record_never_go_down
                    a_heartbeat_renews_only_receiving_uploads
                    a_failed_upload_keeps_its_highest_figures
                }
                listing {
                    uploads_are_listed_newest_first
                    uploads_are_listed_by_status
                    uploads_are_listed_by_the_key_that_sent_them
                    the_uploads_of_tokens_are_listed_with_those_of_their_key
                    pages_neither_skip_nor_repeat_an_upload
                    uploads_created_at_the_same_time_are_listed_by_id
                }
                reversal {
                    a_cancelled_upload_stores_nothing_more_and_leaves_no_row
                    an_ended_upload_is_not_cancelled
                    an_undone_upload_leaves_no_row_and_no_archive
                    an_upload_is_undone_once_and_only_if_it_ended_well
                    same_content_is_found_only_while_its_rows_are_visible
                    of_concurrent_claims_to_one_content_a_single_one_succeeds
                    an_upload_holds_its_content_while_it_is_processed_and_afterwards
                }
            } }
            tests! { $fixture in tenants {
                uploads {
                    each_tenant_uses_a_public_id_once
                    an_id_of_the_database_is_no_public_id_of_another_upload
                    of_concurrent_creations_of_one_id_each_tenant_makes_one
                    a_tenant_finds_its_own_uploads_only
                    a_tenant_lists_its_own_uploads_only
                    the_content_of_another_tenant_is_new
                }
                datasets {
                    datasets_of_two_tenants_with_one_name_are_independent
                    a_tenant_deletes_its_own_dataset_only
                    concurrent_first_datasets_of_a_tenant_are_all_created
                    every_dataset_has_a_table_of_its_own_whatever_the_names_are
                    an_upload_into_a_dataset_of_another_tenant_is_not_created
                    uploads_are_listed_by_the_dataset_of_their_tenant
                }
                rows {
                    rows_go_into_the_table_of_their_tenant
                    a_removal_leaves_the_rows_of_another_tenant
                    a_merge_and_its_undo_change_the_table_of_one_tenant
                    the_table_of_a_tenant_rejects_rows_with_their_column
                    a_trial_reads_the_table_of_its_tenant
                }
            } }
            tests! { $fixture in dead_letters {
                parking {
                    a_dead_letter_is_kept_once_and_counted
                    a_dead_letter_of_a_stored_batch_is_not_kept
                    a_dead_letter_without_an_upload_is_kept
                    dead_letters_are_listed_with_their_messages
                    an_upload_ends_without_its_dead_letters
                    a_message_beyond_the_last_batch_does_not_end_its_upload
                    batches_are_listed_by_their_status
                    the_messages_of_an_upload_are_deleted_with_its_rows
                }
                retrying {
                    a_retried_upload_completes_in_the_same_epoch
                    a_retry_of_one_batch_or_row_leaves_the_others
                    a_dead_letter_is_retried_before_its_upload_ends
                    a_retried_message_is_claimed_by_one_process
                    a_retried_batch_that_fails_again_is_a_dead_letter_again
                    an_upload_that_keeps_no_rows_is_not_retried
                    a_copy_of_a_dead_letter_is_not_stored_after_the_end
                }
            } }
            tests! { $fixture in batches {
                storing {
                    a_group_returns_one_outcome_per_batch_in_order
                    a_group_is_stored_whole_or_not_at_all
                    a_replay_adds_nothing_and_is_reported
                    concurrent_stores_of_a_batch_store_it_once
                    a_batch_without_rows_is_stored
                    ledger_entries_are_in_order_and_complete
                    the_ledger_keeps_how_the_object_of_each_batch_is_compressed
                    progress_returns_the_ledger_and_the_recorded_figures
                    sums_are_those_of_the_ledger_and_the_recorded_figures
                    a_batch_is_admitted_while_it_can_be_stored
                }
                fence {
                    a_batch_of_a_failed_upload_is_fenced_and_leaves_no_row
                    a_batch_being_stored_does_not_outlive_a_failure
                    a_fenced_batch_is_not_validated
                    a_batch_of_another_epoch_is_fenced
                    a_batch_of_an_unknown_upload_is_reported
                }
            } }
            tests! { $fixture in datasets {
                definitions {
                    a_definition_is_read_back_unchanged
                    the_same_definition_again_changes_nothing
                    a_nullable_column_is_added_and_older_rows_read_as_null
                    a_change_that_the_table_cannot_take_is_refused_with_its_reason
                    a_dataset_of_an_unfit_table_is_not_created
                    datasets_are_listed_by_name_in_pages
                    a_page_of_datasets_is_bounded_in_bytes
                    concurrent_puts_of_one_name_create_it_once
                    names_with_quotes_and_semicolons_change_nothing_but_their_own_table
                }
                use_by_uploads {
                    an_upload_of_a_missing_dataset_is_not_created
                    an_upload_with_other_columns_than_its_dataset_is_not_created
                    an_upload_into_another_table_than_that_of_its_dataset_is_not_created
                    an_upload_keeps_the_columns_of_its_dataset
                    uploads_are_listed_by_dataset
                    a_dataset_in_use_is_not_deleted
                    a_status_of_a_newer_build_keeps_the_dataset
                    a_deleted_dataset_leaves_no_table
                    a_deletion_and_a_new_upload_exclude_each_other
                    rows_of_an_expired_merge_keep_the_dataset
                }
                rows {
                    typed_rows_are_stored_with_exactly_their_values
                    typed_rows_are_read_back_in_canonical_form
                    the_widest_row_that_the_store_takes_is_stored
                    typed_and_landing_batches_of_one_group_are_stored_together
                    a_group_with_a_typed_row_that_does_not_fit_is_not_stored
                    a_replay_of_typed_rows_adds_nothing
                    a_failed_typed_upload_leaves_no_row
                    an_undone_typed_upload_leaves_no_row
                    rows_of_a_typed_upload_are_visible_only_after_it_ended_well
                }
                violations {
                    a_row_that_violates_a_constraint_is_rejected_and_the_others_are_stored
                    of_rows_with_one_unique_value_the_first_is_stored
                    rejected_rows_of_a_group_are_counted_for_each_batch
                    a_replay_reports_the_rejected_rows_again
                    rows_that_the_table_rejects_are_counted_to_the_end
                    a_violating_row_without_its_origin_is_invalid
                    a_failed_upload_keeps_its_rejected_rows_and_no_others
                    an_undone_upload_keeps_its_rejected_rows_and_no_others
                }
                reject_limits {
                    an_upload_without_stored_rows_has_too_many_rejects
                    the_limit_of_rejected_rows_holds_for_violations
                }
                staging {
                    staged_rows_are_nowhere_before_the_merge
                    a_merge_waits_for_all_batches
                    no_row_is_merged_while_a_batch_is_a_dead_letter
                    an_upload_that_was_not_merged_is_undone
                    a_merge_with_too_many_rejects_changes_nothing
                    a_staged_row_without_its_origin_is_invalid
                    a_cancelled_upload_leaves_no_staged_row
                }
                merging {
                    an_update_replaces_the_rows_that_have_the_same_key
                    an_ignored_row_leaves_the_table_as_it_is
                    an_atomic_upload_appends_its_rows_at_its_end
                    an_empty_text_differs_from_null_in_a_merge
                    a_column_that_the_file_lacks_keeps_its_values
                    a_merge_rejects_rows_that_violate_a_constraint
                    a_replaced_row_is_no_longer_read_with_its_upload
                }
                merging_with_removals {
                    rows_to_be_removed_are_replaced_by_equal_rows
                    rows_are_not_ignored_because_of_rows_to_be_removed
                }
                undoing {
                    an_undone_merge_leaves_the_table_as_it_was
                    an_undo_keeps_rows_that_changed_later
                    an_undo_leaves_rows_that_a_constraint_keeps
                    an_upload_whose_previous_values_are_forgotten_is_not_undone
                    rows_of_a_merge_outlive_the_record_of_its_rows
                }
            } }
            tests! { $fixture {
                connection {
                    a_reachable_store_answers_a_ping
                    a_store_keeps_its_own_installation_id
                    committed_data_survives_reopening
                    several_handles_can_open_a_new_store_at_once
                    a_failed_call_names_its_operation
                    a_corrupt_value_is_reported_with_its_column
                }
                completion {
                    an_upload_is_not_complete_while_a_batch_is_missing
                    an_upload_is_not_complete_before_it_is_sealed
                    an_upload_without_rows_completes
                    concurrent_last_batches_complete_an_upload_exactly_once
                    row_counts_that_do_not_add_up_are_a_mismatch
                    an_ended_upload_is_reported_as_ended
                    a_completed_upload_has_its_final_figures
                }
                rows {
                    every_text_is_read_back_unchanged
                    an_empty_cell_is_not_null
                    every_json_escape_is_decoded
                    a_cell_of_1_mib_is_read_back_whole
                    a_batch_of_1000_rows_of_70_columns_is_read_back_whole
                    rows_are_read_in_order_however_they_were_stored
                    rows_are_visible_only_after_their_upload_ended_well
                    a_page_of_rows_holds_several_batches_only_if_they_are_small
                    compression_does_not_put_more_batches_on_a_page_of_rows
                    the_next_page_of_an_undone_upload_is_a_conflict
                }
                rejects {
                    a_rejected_row_is_read_back_unchanged
                    rejected_rows_are_read_in_order_and_once_each
                    a_page_of_rejected_rows_is_bounded_in_bytes
                    a_page_of_rejected_rows_does_not_read_the_long_rows_behind_it
                    a_failed_upload_keeps_its_rejected_rows_and_takes_no_more
                    rows_being_rejected_do_not_outlive_a_failure
                    an_upload_with_rejected_rows_ends_as_partial
                    rejected_counts_that_do_not_add_up_are_a_mismatch
                    rows_keep_their_numbers_around_rejected_rows
                }
                holds {
                    an_upload_with_a_missing_batch_is_found_and_marked
                    only_a_sealed_upload_with_missing_batches_is_quiet
                    a_hold_or_a_stored_batch_ends_the_quiet
                    an_upload_with_lost_batches_is_ended_once
                    a_lost_batch_that_appears_again_completes_its_upload
                    a_lost_retry_is_a_dead_letter_again
                }
                keys {
                    a_key_is_read_back_with_every_field
                    a_key_of_an_existing_id_is_a_conflict
                    keys_are_listed_oldest_first_in_pages
                    keys_are_listed_by_tenant
                    the_time_of_the_first_revocation_stays
                    a_key_of_another_tenant_is_not_revoked
                }
                tokens {
                    all_processes_get_the_secret_that_was_kept_first
                    the_uploads_of_a_token_are_counted_up_to_its_limit
                    of_concurrent_uploads_of_a_token_with_one_left_exactly_one_is_created
                    an_upload_that_is_not_created_is_not_counted
                    concurrent_repetitions_of_a_request_never_find_its_token_used_up
                    an_upload_that_takes_over_the_key_of_a_failed_one_is_not_counted_again
                    another_request_that_takes_over_the_key_of_a_failed_upload_is_counted
                    the_count_of_a_token_is_removed_an_hour_after_its_end
                }
                quotas {
                    a_tenant_has_as_many_slots_as_it_is_given
                    an_upload_that_was_sealed_or_has_ended_has_no_slot
                    an_upload_whose_lease_expired_has_no_slot
                    of_concurrent_creations_as_many_succeed_as_there_are_slots
                    a_creation_within_slots_is_refused_like_any_creation
                    a_creation_within_slots_takes_the_key_of_its_request
                    an_upload_counts_once_with_its_final_figures
                    what_arrives_until_the_end_of_a_cancelled_upload_counts_once
                    the_usage_of_a_tenant_is_that_of_its_uploads_today
                    usage_is_deleted_after_400_days_in_bounded_steps
                }
                observation {
                    unfinished_uploads_are_counted_by_their_status
                    the_oldest_processing_upload_is_the_one_that_was_sealed_first
                    dead_letters_are_counted
                    the_rejected_rows_of_an_upload_are_counted_by_their_codes
                    connections_in_use_stay_within_their_limit
                }
                audit {
                    every_change_leaves_one_entry
                    an_entry_has_the_actor_and_the_tenant_of_the_object
                    a_call_that_changes_nothing_leaves_no_entry
                    a_request_that_takes_effect_once_leaves_one_entry
                    of_concurrent_changes_one_leaves_an_entry
                    entries_are_listed_by_tenant_in_pages
                    no_page_skips_the_entry_of_a_concurrent_change
                    only_old_entries_are_deleted
                }
            } }
            tests! { $fixture in events {
                writing {
                    every_change_of_a_status_leaves_one_event
                    an_event_has_the_figures_that_are_known
                    the_event_of_a_merge_has_its_outcomes
                    an_event_has_the_public_id_and_the_tenant_of_its_upload
                    a_call_that_changes_no_status_leaves_no_event
                    of_concurrent_changes_of_a_status_one_leaves_an_event
                }
                listing {
                    events_are_listed_by_tenant_and_sender_in_pages
                    no_page_skips_the_event_of_a_concurrent_change
                    a_position_is_never_used_again
                    only_old_events_are_deleted
                }
                sending {
                    a_claimed_event_is_claimed_once
                    a_claim_ends_with_its_lease
                    a_claim_of_the_future_ends
                    an_event_waits_until_the_earlier_ones_of_its_upload_are_sent
                    any_number_of_workers_sends_the_events_of_an_upload_in_order
                    events_that_are_not_sent_are_counted
                }
            } }
            tests! { $fixture in idempotency {
                creating {
                    a_request_is_found_with_its_upload_and_fingerprint
                    of_concurrent_requests_with_one_key_a_single_one_creates_an_upload
                    an_interrupted_creation_leaves_an_upload_with_its_key_or_nothing
                    an_upload_that_is_not_created_leaves_its_key_free
                    keys_of_other_tenants_senders_and_routes_make_no_difference
                    of_concurrent_requests_for_an_api_key_a_single_one_makes_it
                }
                freeing {
                    a_sealed_upload_keeps_its_key_whatever_becomes_of_it
                    a_single_request_takes_over_the_key_of_an_upload_that_was_never_sealed
                    the_key_of_an_upload_without_a_record_is_free
                    a_key_is_free_after_24_hours
                    keys_of_old_requests_are_forgotten_in_bounded_steps
                }
            } }
            tests! { $fixture in validation {
                differences {
                    a_trial_finds_what_an_update_would_do
                    a_trial_finds_what_an_ignoring_upload_would_do
                    a_trial_finds_what_an_appending_upload_would_do
                    a_trial_finds_what_an_upload_of_any_rows_would_do
                    a_trial_of_a_file_without_rows_finds_no_difference
                }
                changes {
                    changed_columns_are_those_of_updated_rows
                    a_trial_compares_only_the_columns_of_the_file
                    no_column_is_changed_unless_rows_are_updated
                }
                limits {
                    a_trial_returns_the_first_100_rejected_rows
                    the_limit_of_rejected_rows_holds_for_a_trial
                    a_trial_of_rows_that_all_violate_has_too_many_rejects
                    the_first_reject_of_a_trial_is_the_one_that_an_upload_keeps
                    the_rejected_rows_of_a_trial_have_a_limited_size
                    a_trial_ends_within_its_time_limit
                }
                reading {
                    no_writer_waits_while_batches_are_read
                    a_trial_whose_batches_cannot_be_read_leaves_nothing
                    a_batch_that_does_not_fit_its_trial_is_invalid
                    a_trial_is_unavailable_while_rows_must_be_removed
                    a_trial_of_a_missing_dataset_is_not_found
                }
            } }
            tests! { $fixture in maintenance {
                leftovers {
                    a_receiving_upload_without_heartbeats_expires
                    a_heartbeat_renews_the_lease
                    a_sealed_upload_without_an_end_is_unfinished
                    a_failed_upload_is_listed_until_its_rows_are_removed
                    the_archive_of_a_failed_upload_is_listed_until_it_is_removed
                    the_archive_of_a_cancelled_upload_is_listed_at_once_and_again
                    the_archive_of_a_cancelled_upload_is_listed_after_the_longest_write
                }
                expiry {
                    an_expired_upload_is_ended_once
                    an_expired_upload_ends_like_any_failed_upload
                    a_heartbeat_after_the_selection_keeps_the_upload
                    a_seal_after_the_selection_keeps_the_upload
                    another_epoch_does_not_expire
                }
                removal {
                    an_interrupted_removal_is_resumed_by_another_handle
                    removal_keeps_the_rows_of_other_uploads
                    rows_of_receiving_and_completed_uploads_are_never_removed
                    concurrent_removals_of_an_upload_succeed
                }
                retention {
                    an_expired_upload_loses_rows_and_ledger_and_keeps_its_record
                    uploads_that_keep_no_rows_do_not_expire
                    reading_expired_rows_is_a_conflict
                    the_content_of_an_expired_upload_is_new_again
                }
            } }
        }
    };
}

contract!(postgres on Postgres);
contract!(sqlite on Sqlite);
