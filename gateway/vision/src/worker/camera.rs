//! One camera of a worker: what its source does, what its pictures show, which stills wait. Owns the state told to the gateway; refuses
//! threads and pipes: it is called by the analysis and returns what is to be said.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Clock;
use crate::health::Watch;
use crate::pipeline::{FrameResult, Pipeline};
use crate::protocol::{CameraState, Heartbeat, Jpeg, StillOutcome, StillRequest, WorkerConfig, WorkerMessage};
use crate::source::Watchdog;
use crate::still::Still;
use crate::thrift::{Effort, Thrift};

use super::mailbox::{Arrived, SourceEvent};

/// The reason of a still that shows how a track came.
const ARRIVAL: &str = "arrival";
/// The reason of a still that shows all that the camera sees.
const TEST: &str = "test";
/// Pictures in a row the detector may fail on before the worker gives up.
const DETECTOR_FAILURES_MAX: u32 = 3;
/// While pictures come in turn, a still waits this long for a fresh one, ms; then the newest there is must do.
const FRESH_WITHIN_MS: i64 = 1500;
/// More stills than this are not kept waiting; each is a second's work.
const STILLS_MAX: usize = 16;

pub(super) struct Camera<'a> {
    pub config: &'a WorkerConfig,
    pipeline: Pipeline,
    thrift: Arc<Thrift>,
    watchdog: Watchdog,
    /// What the source is doing, and what was told about the camera.
    source: CameraState,
    told: Option<CameraState>,
    health: Watch,
    newest: Option<Arrived>,
    failures: u32,
    analysed: u64,
    analysed_at_beat: u64,
    looked: u64,
    lag_ms: i64,
    decode_errors: u64,
    /// Stills that wait, and until when.
    waiting: VecDeque<(StillRequest, i64)>,
}

impl<'a> Camera<'a> {
    pub fn new(
        config: &'a WorkerConfig,
        pipeline: Pipeline,
        thrift: Arc<Thrift>,
        watchdog: Watchdog,
        clock: &dyn Clock,
    ) -> Self {
        Self {
            config,
            pipeline,
            thrift,
            watchdog,
            source: CameraState::Connecting,
            told: None,
            health: Watch::new(config.reference.as_deref(), if config.is_paced() { clock.mono_ms() } else { 0 }),
            newest: None,
            failures: 0,
            analysed: 0,
            analysed_at_beat: 0,
            looked: 0,
            lag_ms: 0,
            decode_errors: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Does its capture thread hang?
    pub fn is_stuck(&self, grace_ms: u64) -> bool {
        self.watchdog.is_stuck(grace_ms)
    }

    /// How much to spend on it from now on.
    pub fn spend(&self, effort: Effort) {
        self.thrift.set(effort);
    }

    pub fn source_changed(&mut self, event: SourceEvent, clock: &dyn Clock) -> Option<WorkerMessage> {
        self.source = match event {
            // While it is tried again and again the last error stays the state: it says more than "connecting".
            SourceEvent::Connecting if matches!(self.source, CameraState::Error { .. }) => return None,
            SourceEvent::Connecting => CameraState::Connecting,
            SourceEvent::Streaming => {
                if self.config.is_paced() {
                    self.health.reconnected(clock.mono_ms());
                }
                CameraState::Streaming
            }
            SourceEvent::Ended => CameraState::Ended,
            SourceEvent::Failed { kind, message, retry_in_ms } => {
                CameraState::Error { kind, message, fatal: false, retry_in_ms: Some(retry_in_ms) }
            }
        };
        self.state(clock)
    }

    /// The camera's state if it changed: trouble with the pictures shows only while the source is streaming.
    pub fn state(&mut self, clock: &dyn Clock) -> Option<WorkerMessage> {
        let now_ms = match (&self.newest, self.config.is_paced()) {
            (_, true) => clock.mono_ms(),
            (Some(newest), false) => newest.moment.stream_ms,
            (None, false) => 0,
        };
        let state = match (&self.source, self.health.trouble(now_ms)) {
            (CameraState::Streaming, Some(trouble)) => trouble.into(),
            (state, _) => state.clone(),
        };
        if self.told.as_ref() == Some(&state) {
            return None;
        }
        self.told = Some(state.clone());
        Some(WorkerMessage::State { at_ms: self.now_wall_ms(clock), state })
    }

    /// The wall time now: of the last picture where time is simulated.
    fn now_wall_ms(&self, clock: &dyn Clock) -> i64 {
        match (&self.newest, self.config.is_paced()) {
            (Some(newest), false) => newest.moment.at_ms,
            (None, false) => self.config.start_at_ms.unwrap_or_else(|| clock.wall_ms()),
            (_, true) => clock.wall_ms(),
        }
    }

    /// Analyses a picture.
    ///
    /// # Errors
    /// The detector failed too often: it does not work.
    pub fn picture(&mut self, arrived: Arrived, clock: &dyn Clock) -> Result<Vec<WorkerMessage>, String> {
        match self.pipeline.analyse(&arrived.frame, arrived.moment) {
            Ok(FrameResult { tracks, ended, look }) => {
                self.failures = 0;
                self.analysed += 1;
                self.looked += u64::from(tracks.looked);
                self.lag_ms = self.lag_ms.max(clock.mono_ms() - arrived.arrived_ms);
                self.decode_errors = arrived.decode_errors;
                self.health.picture(arrived.moment.stream_ms, &arrived.frame, look);
                let at_ms = tracks.at_ms;
                self.newest = Some(arrived);
                // What a covered or moved camera shows, or no longer shows, is no news of the street.
                let mut messages = Vec::new();
                if self.health.is_trusted() {
                    messages.push(WorkerMessage::Tracks(tracks));
                }
                if !ended.is_empty() {
                    messages.push(WorkerMessage::TracksEnded { at_ms, tracks: ended });
                }
                Ok(messages)
            }
            Err(error) => {
                self.failures += 1;
                if self.failures >= DETECTOR_FAILURES_MAX {
                    return Err(error.to_string());
                }
                eprintln!("camera-worker: {}: a picture was skipped: {error}", self.config.camera);
                Ok(Vec::new())
            }
        }
    }

    /// A still is wanted: of the newest picture, or while pictures come in turn, of a fresh one if it comes soon.
    pub fn still_wanted(&mut self, request: StillRequest, clock: &dyn Clock) {
        let now_ms = clock.mono_ms();
        let saving = self.thrift.is_saving() && self.config.is_paced();
        if saving {
            self.thrift.hurry();
        }
        let room = self.waiting.len() < STILLS_MAX;
        self.waiting.push_back((request, if saving && room { now_ms + FRESH_WITHIN_MS } else { now_ms }));
    }

    /// Makes the stills that need not wait any longer.
    pub fn stills(&mut self, clock: &dyn Clock) -> Vec<WorkerMessage> {
        let now_ms = clock.mono_ms();
        let newest_ms = self.newest.as_ref().map_or(i64::MIN, |newest| newest.arrived_ms);
        let mut made = Vec::new();
        for (request, until_ms) in std::mem::take(&mut self.waiting) {
            if now_ms < until_ms && newest_ms < until_ms - FRESH_WITHIN_MS {
                self.waiting.push_back((request, until_ms));
                continue;
            }
            let outcome = self.take_still(&request).unwrap_or_else(|message| StillOutcome::Failed { message });
            made.push(WorkerMessage::Still { request_id: request.request_id, reason: request.reason, outcome });
        }
        made
    }

    fn take_still(&mut self, request: &StillRequest) -> Result<StillOutcome, String> {
        let newest = self.newest.as_ref().ok_or("there is no picture yet; ask again when the camera streams")?;
        if request.reason == TEST {
            let still = self.pipeline.test_still(&newest.frame, newest.moment).map_err(|e| e.to_string())?;
            return Ok(taken(still, newest.moment.at_ms, true));
        }
        let track = request.track.filter(|_| request.reason == ARRIVAL);
        let remembered = track.map(|track| self.pipeline.arrival(track)).transpose().map_err(|e| e.to_string())?;
        let (still, taken_at_ms, track_found) = match remembered.flatten() {
            Some((still, taken_at_ms)) => (still, taken_at_ms, true),
            None => {
                let at_ms = newest.moment.at_ms;
                let made = self.pipeline.still(&newest.frame, at_ms, request.track).map_err(|e| e.to_string())?;
                (made.0, at_ms, made.1)
            }
        };
        Ok(taken(still, taken_at_ms, track_found))
    }

    /// Signs of life since the last heartbeat; memory and processor time are the worker's to add.
    pub fn heartbeat(&mut self, clock: &dyn Clock, passed_ms: i64, shed: u64) -> Heartbeat {
        let pictures = self.analysed - std::mem::replace(&mut self.analysed_at_beat, self.analysed);
        Heartbeat {
            at_ms: clock.wall_ms(),
            frames_per_s: pictures as f32 * 1000.0 / passed_ms as f32,
            analysed: self.analysed,
            shed,
            decode_errors: self.decode_errors,
            looked: self.looked,
            lag_ms: u64::try_from(std::mem::take(&mut self.lag_ms)).unwrap_or(0),
            rss_bytes: 0,
            cpu_ms: 0,
        }
    }
}

fn taken(still: Still, taken_at_ms: i64, track_found: bool) -> StillOutcome {
    StillOutcome::Taken {
        jpeg: Jpeg(still.jpeg),
        sha256: still.sha256,
        width: still.width,
        height: still.height,
        taken_at_ms,
        people_blurred: still.people_blurred,
        track_found,
    }
}
