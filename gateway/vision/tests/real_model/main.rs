//! Tests with the real detector, the real library and real footage. What is absent is skipped with the reason, and counted as
//! skipped.

#![allow(clippy::unwrap_used, missing_docs)]

mod clips;
mod figures;
mod gate;
mod rtsp;
mod sandbox;
mod shared;
mod support;
mod workers;

use libtest_mimic::{Arguments, Completion, Trial};

type Test = fn() -> Result<(), support::Skip>;

fn main() {
    if std::env::var_os(support::WORKER_VARIABLE).is_some() {
        let exit = gengfu_vision::worker::run(std::io::BufReader::new(std::io::stdin()), std::io::stdout());
        std::process::exit(if exit == gengfu_vision::worker::WorkerExit::Stopped { 0 } else { 2 });
    }
    if let Some(what) = std::env::var_os(sandbox::ESCAPE_VARIABLE) {
        return sandbox::escape(&what.to_string_lossy());
    }
    let tests: &[(&str, Test)] = &[
        ("on_vtest_the_van_and_the_car_are_two_standing_tracks_and_nobody_else_is", clips::vtest_vehicles),
        ("key_frames_only_gives_four_pictures_of_vtest_in_order", clips::key_frames),
        ("the_parked_car_of_the_lane_is_one_track_that_stands_and_leaves", clips::parking_lane),
        ("nanodet_plus_sees_the_same_van_and_car", clips::nanodet_vtest),
        ("two_models_on_one_camera_see_each_thing_once", clips::two_models),
        ("the_yardstick_of_average_precision_measures_right", figures::yardstick),
        ("the_litter_model_reaches_its_bar_through_the_gateway_s_detector", figures::litter),
        ("the_street_model_is_as_good_as_its_teacher_through_the_gateway_s_detector", figures::street),
        ("a_still_of_the_arrival_shows_the_past_without_its_people", clips::arrival),
        ("a_still_of_vtest_shows_no_person_and_fits_the_limit", clips::still),
        ("a_damaged_clip_gives_pictures_or_an_error_but_no_panic", clips::damaged),
        ("a_model_that_is_not_the_manifest_s_is_refused", clips::wrong_model),
        ("a_worker_gives_the_same_tracks_for_the_same_clip", workers::deterministic),
        ("a_worker_answers_stills_through_memory_and_in_time", workers::stills),
        ("a_worker_fed_garbage_reports_it_and_lives", workers::garbage),
        ("a_worker_without_library_or_with_a_bad_configuration_says_so_and_exits_2", workers::fatal),
        ("a_worker_whose_parent_goes_away_goes_too", workers::orphan),
        ("a_worker_loops_a_clip_in_its_own_time_and_sends_heartbeats", workers::looped),
        ("three_cameras_share_a_worker_and_a_bad_one_harms_nobody", shared::three_cameras),
        ("a_camera_may_be_told_to_spend_less_and_its_stills_come_still", shared::effort),
        ("a_camera_whose_reading_hangs_is_named_before_the_worker_ends", shared::stuck),
        ("one_faulty_configuration_is_blamed_by_name", shared::faulty),
        ("the_gate_spares_the_detector_and_the_van_and_the_car_stand_all_the_same", gate::vtest),
        ("the_gate_spares_the_detector_and_the_parked_car_comes_and_goes_at_the_same_times", gate::parking_lane),
        ("a_confined_worker_reads_what_is_listed_and_nothing_else", sandbox::files),
        ("a_confined_worker_has_the_internet_and_threads_but_no_other_program_s_socket", sandbox::calls),
        ("a_confined_worker_that_starts_a_program_is_stopped_and_says_so", sandbox::exec),
        ("an_rtsp_camera_that_is_killed_is_trouble_and_comes_back", rtsp::killed_server),
    ];
    // Known before anything runs, so that a runner that only counts flags counts them as skipped as well.
    let absent = support::yolox().err();
    // CI forbids skipping for want of what set-up fetches, so that a missing step cannot hide.
    let forbidden = std::env::var_os("GENGFU_NO_SKIP").is_some_and(|value| value != "0" && !value.is_empty());
    if let Some(why) = &absent {
        eprintln!("every test here needs the detector: {why}");
    }
    let trials = tests.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || match test() {
            Ok(()) => Ok(Completion::Completed),
            Err(why) if forbidden && !why.ends_with(support::OPTIONAL) => {
                Err(format!("would be skipped, because {why}; GENGFU_NO_SKIP forbids that").into())
            }
            Err(why) => Ok(Completion::ignored_with(format!("skipped, because {why}"))),
        })
        .with_ignored_flag(absent.is_some() && !forbidden)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
