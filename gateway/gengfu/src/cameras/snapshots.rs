//! A picture of now, for the centre.
//!
//! Owns the `snapshot` verb from the order to its last word: which camera, may it be shown, is there a picture in time. The picture itself comes by the road
//! of every other still, so people are blurred and masks burned in before it leaves the worker's memory. Refuses to wait: a picture that is not there
//! within [`WITHIN`] is refused, and removed if it comes all the same. It never takes a place that an alarm's picture needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gengfu_contract::command::{Outcome, Reply, SnapshotCommand, SnapshotData};
use gengfu_contract::event::EvidenceRef;
use gengfu_contract::slug::Slug;
use gengfu_contract::words::Text;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{CameraStatus, Shot, Wanted};
use crate::clock::Clock;
use crate::evidence::Pictures;

/// The contract allows 2 s from the command to its picture (mission, row 12). Two commits and the way to the broker need a share of it: what is not in the
/// gateway's hands by now is not in time.
pub const WITHIN: Duration = Duration::from_millis(1_800);
/// Number of the picture on `evidence/<cmd_id>/<n>`.
pub const N: u32 = 1;
/// What it shows.
pub const CAPTION: &str = "抓拍 snapshot";
/// Snapshots under way at one time. A camera's channel holds more, so that an alarm's picture always finds a place.
const AT_ONCE: usize = 4;

/// A camera as far as a snapshot needs it.
#[derive(Debug)]
pub struct Lens {
    /// Where pictures are asked for.
    pub wanted: mpsc::Sender<Wanted>,
    /// How it is.
    pub status: watch::Receiver<CameraStatus>,
    /// The installer allows pictures of now.
    pub is_allowed: bool,
}

/// Who takes snapshots.
#[derive(Debug)]
pub struct Snapshots {
    /// The cameras that could be started.
    pub cameras: BTreeMap<Slug, Lens>,
    /// Where pictures are kept.
    pub pictures: Pictures,
    /// How long a picture is waited for: [`WITHIN`], but in tests.
    pub within: Duration,
}

type Taken = (String, SnapshotCommand, Result<EvidenceRef, Text>);

impl Snapshots {
    /// Takes orders until `stop`; each gets its last word on `answers`, which leads to the decider.
    pub async fn run(
        self,
        mut orders: mpsc::Receiver<(String, SnapshotCommand)>,
        answers: mpsc::Sender<Reply>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) {
        let mut under_way: FuturesUnordered<BoxFuture<'static, Taken>> = FuturesUnordered::new();
        loop {
            let (cmd_id, order, result) = tokio::select! {
                () = stop.cancelled() => return,
                Some(taken) = under_way.next(), if !under_way.is_empty() => taken,
                order = orders.recv() => {
                    let Some((cmd_id, order)) = order else { return stop.cancelled().await };
                    match self.take(&cmd_id, &order, under_way.len()) {
                        Ok(taking) => {
                            under_way.push(Box::pin(taking));
                            continue;
                        }
                        Err(why) => (cmd_id, order, Err(why)),
                    }
                }
            };
            if result.is_ok() {
                self.pictures.taken(&cmd_id, &order.operator, order.camera.as_str()).await;
            }
            // The decider is gone only at shutdown.
            let _ = answers.send(last_word(cmd_id, result, clock.as_ref())).await;
        }
    }

    /// Asks the camera; what is returned completes with the picture, or when it is too late.
    fn take(
        &self,
        cmd_id: &str,
        order: &SnapshotCommand,
        under_way: usize,
    ) -> Result<impl Future<Output = Taken> + use<>, Text> {
        let camera = &order.camera;
        let lens = self.cameras.get(camera).ok_or_else(|| cannot_start(camera))?;
        if !lens.is_allowed {
            return Err(not_allowed(camera));
        }
        {
            let status = lens.status.borrow();
            if !status.is_streaming() {
                return Err(no_view(camera, &status));
            }
        }
        if under_way >= AT_ONCE {
            return Err(busy());
        }
        // Of an order that was given before a restart, and not answered.
        self.pictures.discard(cmd_id);
        let (answer, taken) = oneshot::channel();
        lens.wanted.try_send(Wanted::Shot(Shot { cmd_id: cmd_id.to_owned(), answer })).map_err(|_| busy())?;
        let (cmd_id, order, within) = (cmd_id.to_owned(), order.clone(), self.within);
        Ok(async move {
            let result = match tokio::time::timeout(within, taken).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(no_picture("the camera is being stopped")),
                Err(_) => Err(not_in_time(within)),
            };
            (cmd_id, order, result)
        })
    }
}

fn last_word(cmd_id: String, result: Result<EvidenceRef, Text>, clock: &dyn Clock) -> Reply {
    match result {
        Ok(EvidenceRef { sha256, bytes, media_type, taken_at, .. }) => {
            let data = SnapshotData { sha256, bytes, media_type, taken_at };
            let data = serde_json::to_value(data).expect("text and numbers have a JSON form");
            Reply { data: Some(data), ..Reply::new(cmd_id, Outcome::Done, None, clock.now()) }
        }
        Err(why) => {
            tracing::warn!(cmd = %cmd_id, why = %why.en, "no snapshot");
            Reply::new(cmd_id, Outcome::Refused, Some(why), clock.now())
        }
    }
}

/// The worker's own words on why there is none.
pub(super) fn no_picture(why: &str) -> Text {
    Text { zh: format!("未能取得画面：{why}"), en: format!("no picture: {why}") }
}

fn not_in_time(within: Duration) -> Text {
    let ms = within.as_millis();
    Text {
        zh: format!("未能及时取得画面（{ms} 毫秒内）；请稍后换新编号重试"),
        en: format!("not in time: no picture within {ms} ms; try again with a new id"),
    }
}

fn busy() -> Text {
    Text {
        zh: "抓拍请求过多，请稍后换新编号重试".into(),
        en: "too many snapshots at once: try again with a new id".into(),
    }
}

fn not_allowed(camera: &Slug) -> Text {
    Text {
        zh: format!("按隐私设置，摄像机 {camera} 不允许抓拍"),
        en: format!("camera {camera} gives no snapshots, for privacy (`snapshots = false` in its configuration)"),
    }
}

fn cannot_start(camera: &Slug) -> Text {
    Text {
        zh: format!("摄像机 {camera} 未能启动；请技术人员运行 gengfu status 查看原因"),
        en: format!("camera {camera} could not be started: have a technician look at `gengfu status`"),
    }
}

fn no_view(camera: &Slug, status: &CameraStatus) -> Text {
    let CameraStatus { state, remedy, .. } = status;
    Text {
        zh: format!("摄像机 {camera} 当前没有可用画面（{state}）"),
        en: format!("camera {camera} has no usable picture now: {state}; {remedy}"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::clock::SystemClock;
    use crate::evidence::keeper::Job;

    fn slug(name: &str) -> Slug {
        Slug::new(name).unwrap()
    }

    fn order(camera: &str) -> SnapshotCommand {
        let issued_at = Timestamp::UNIX_EPOCH;
        SnapshotCommand { camera: slug(camera), operator: "op".into(), issued_at, expires_at: None }
    }

    fn picture() -> EvidenceRef {
        EvidenceRef {
            n: N,
            sha256: "ab".repeat(32),
            bytes: 7,
            media_type: "image/jpeg".into(),
            taken_at: Timestamp::UNIX_EPOCH,
            caption: CAPTION.into(),
        }
    }

    struct Rig {
        orders: mpsc::Sender<(String, SnapshotCommand)>,
        answers: mpsc::Receiver<Reply>,
        camera: mpsc::Receiver<Wanted>,
        status: watch::Sender<CameraStatus>,
        jobs: mpsc::Receiver<Job>,
    }

    /// Nothing waits that long in a test that does not ask for it.
    const LONG: Duration = Duration::from_secs(600);

    fn rig(is_allowed: bool, within: Duration) -> Rig {
        let (jobs_in, jobs) = mpsc::channel(16);
        let (wanted, camera) = mpsc::channel(16);
        let mut streaming = CameraStatus::starting(slug("cam-1"), "rtsp://x".into(), Timestamp::UNIX_EPOCH);
        streaming.state = "streaming".into();
        let (status, shown) = watch::channel(streaming);
        let lens = Lens { wanted, status: shown, is_allowed };
        let snapshots = Snapshots { cameras: [(slug("cam-1"), lens)].into(), pictures: Pictures::new(jobs_in), within };
        let (orders, taken) = mpsc::channel(16);
        let (answers_in, answers) = mpsc::channel(16);
        tokio::spawn(snapshots.run(taken, answers_in, Arc::new(SystemClock), CancellationToken::new()));
        Rig { orders, answers, camera, status, jobs }
    }

    impl Rig {
        async fn order(&self, cmd_id: &str, camera: &str) {
            self.orders.send((cmd_id.to_owned(), order(camera))).await.unwrap();
        }

        async fn shot(&mut self) -> Shot {
            match self.camera.recv().await.unwrap() {
                Wanted::Shot(shot) => shot,
                Wanted::Alarm(need) => panic!("{need:?}"),
            }
        }

        async fn refused(&mut self, cmd_id: &str) -> Text {
            let reply = self.answers.recv().await.unwrap();
            assert_eq!((reply.cmd_id.as_str(), reply.outcome), (cmd_id, Outcome::Refused));
            let why = reply.reason.unwrap();
            assert!(!why.zh.is_empty() && !why.en.is_empty());
            why
        }
    }

    #[tokio::test]
    async fn a_picture_in_time_is_done_and_named() {
        let mut rig = rig(true, LONG);
        rig.order("c1", "cam-1").await;
        let shot = rig.shot().await;
        assert_eq!(shot.cmd_id, "c1");
        shot.answer.send(Ok(picture())).unwrap();
        let reply = rig.answers.recv().await.unwrap();
        let data: SnapshotData = serde_json::from_value(reply.data.unwrap()).unwrap();
        assert_eq!((reply.outcome, data.sha256, data.bytes), (Outcome::Done, picture().sha256, 7));
    }

    #[tokio::test]
    async fn a_picture_that_is_late_is_refused_and_nobody_takes_it_any_more() {
        let mut rig = rig(true, Duration::from_millis(10));
        rig.order("c1", "cam-1").await;
        let shot = rig.shot().await;
        assert!(rig.refused("c1").await.en.contains("not in time"));
        assert!(shot.answer.is_closed(), "the worker sees that it is too late");
    }

    #[tokio::test]
    async fn a_camera_that_is_unknown_faulty_private_or_asked_too_often_is_refused_with_the_reason() {
        let mut rig = rig(true, LONG);
        rig.order("c1", "cam-9").await;
        assert!(rig.refused("c1").await.en.contains("could not be started"));
        rig.status.send_modify(|status| status.state = "too dark to see anything".into());
        rig.order("c2", "cam-1").await;
        assert!(rig.refused("c2").await.en.contains("too dark"));
        rig.status.send_modify(|status| status.state = "streaming".into());
        for n in 0..AT_ONCE {
            rig.order(&format!("m{n}"), "cam-1").await;
        }
        rig.order("c3", "cam-1").await;
        assert!(rig.refused("c3").await.en.contains("too many"));
        rig.shot().await.answer.send(Err(no_picture("the detector failed"))).unwrap();
        assert!(rig.refused("m0").await.en.contains("the detector failed"));
        drop(rig.shot().await);
        rig.refused("m1").await;

        let mut private = self::rig(false, LONG);
        private.order("c4", "cam-1").await;
        assert!(private.refused("c4").await.en.contains("privacy"));
        assert!(private.camera.try_recv().is_err(), "the worker is not even asked");
    }

    #[tokio::test]
    async fn what_an_unanswered_order_left_before_a_restart_is_ended_first_and_a_look_is_logged() {
        let mut rig = rig(true, LONG);
        rig.order("c1", "cam-1").await;
        let shot = rig.shot().await;
        assert!(matches!(rig.jobs.recv().await, Some(Job::Discard(id)) if id == "c1"));
        shot.answer.send(Ok(picture())).unwrap();
        assert_eq!(rig.answers.recv().await.unwrap().outcome, Outcome::Done);
        let Some(Job::Taken { cmd_id, operator, camera }) = rig.jobs.recv().await else { panic!("it is not logged") };
        assert_eq!((cmd_id.as_str(), operator.as_str(), camera.as_str()), ("c1", "op", "cam-1"));
    }
}
