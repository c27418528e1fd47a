//! Goal: a certificate is used only after a broker took it, a bad one is given up while the good one stays, and nothing is given up that is
//! the only hope. Method: the real slots in a folder, a broker of the test's words, simulated time.

use std::sync::Mutex;

use super::super::slots::wanted_by;
use super::super::testing::{Authority, NOW, Years};
use super::super::time::tests::Wall;
use super::super::time::{Reading, TrustedTime};
use super::super::tls::Source;
use super::*;

const NAME: &str = "jinding.block-7";

#[derive(Clone)]
struct Words(Arc<Mutex<(Verdict, bool, u32)>>);

impl Prove for Words {
    fn prove<'a>(&'a self, candidate: &'a Credentials) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        candidate.client_config().expect("only what can be used is tried");
        let mut words = self.0.lock().unwrap();
        words.2 += 1;
        let verdict = words.0.clone();
        Box::pin(async move { verdict })
    }
    fn is_online(&self) -> bool {
        self.0.lock().unwrap().1
    }
}

/// How urgent the trouble is, `None` for none, and its text.
type Told = (Option<(Urgency, Severity)>, String);

struct Bench {
    dir: tempfile::TempDir,
    ca: Authority,
    wall: Arc<Wall>,
    words: Words,
    told: Arc<Mutex<Vec<Told>>>,
    keeper: Keeper,
    status: watch::Receiver<IdentityStatus>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new("ca");
        std::fs::write(dir.path().join("ca.pem"), ca.0.pem()).unwrap();
        let place = dir.path().join("identity");
        let wall = Wall::at("2026-01-01T00:00:00Z", true);
        let words = Words(Arc::new(Mutex::new((Verdict::Proven, true, 0))));
        let told = Arc::new(Mutex::new(Vec::new()));
        let source = Source { ca: dir.path().join("ca.pem"), crl: None, own: Own::Slot(Slots::current_file(&place)) };
        let credentials = Credentials::new(source, TrustedTime::remembered(wall.clone(), &place));
        let (status_in, status) = watch::channel(IdentityStatus::starting(Keeping::Managed, NAME.into()));
        let tells = told.clone();
        let parts = KeeperParts {
            clock: wall.clone(),
            prove: Box::new(words.clone()),
            tell: Box::new(move |cap, detail| {
                tells.lock().unwrap().push((cap, detail.en));
                true
            }),
            status: status_in,
            reload: Arc::new(Notify::new()),
            shutdown: CancellationToken::new(),
        };
        let keeper = Keeper::new(credentials, NAME.into(), Some(place), None, parts);
        Self { dir, ca, wall, words, told, keeper, status }
    }

    fn slots(&self) -> Slots {
        Slots::open(&self.dir.path().join("identity")).unwrap()
    }

    fn offer(&self, years: Years) {
        let mut slots = self.slots();
        let key = slots.request_key(false).unwrap();
        let roots = [self.ca.der()];
        let now = Reading::Known("2026-01-01T00:00:00Z".parse().unwrap());
        slots.offer(&[self.ca.client(&key, NAME, years)], wanted_by(NAME, &roots, "ca.pem", now)).unwrap();
    }

    fn broker(&self, verdict: Verdict, is_online: bool) {
        let mut words = self.words.0.lock().unwrap();
        (words.0, words.1) = (verdict, is_online);
    }

    async fn pass(&mut self, seconds: i64) -> IdentityStatus {
        for _ in 0..seconds / 5 {
            self.wall.pass(5);
            self.keeper.look().await;
        }
        self.status.borrow().clone()
    }
}

#[tokio::test]
async fn the_first_certificate_waits_in_next_until_a_broker_takes_it() {
    let mut bench = Bench::new();
    bench.broker(Verdict::Undecided("no network".into()), false);
    let status = bench.pass(5).await;
    assert!(status.problem.as_ref().is_some_and(|p| p.contains("gengfu enrol request")), "{status:?}");
    bench.offer(NOW);
    let status = bench.pass(3600).await;
    assert!(
        status.current.is_none() && status.next.is_some_and(|next| next.trials > 5),
        "never given up: it is all there is"
    );
    bench.broker(Verdict::Refused("unknown authority".into()), false);
    bench.pass(3600).await;
    assert!(bench.slots().next().unwrap().is_some());
    bench.broker(Verdict::Proven, false);
    let before = bench.keeper.credentials.generation();
    let status = bench.pass(400).await;
    assert!(status.current.is_some() && status.next.is_none() && status.problem.is_none(), "{status:?}");
    assert!(bench.keeper.credentials.generation() > before, "who waits to connect is told");
}

#[tokio::test]
async fn a_refused_successor_is_given_up_after_three_trials_and_told_while_the_old_one_stays() {
    let mut bench = Bench::new();
    bench.offer(NOW);
    bench.pass(5).await;
    let old = bench.slots().current().unwrap().unwrap();
    bench.offer((2021, 2048));
    bench.broker(Verdict::Refused("revoked".into()), true);
    let status = bench.pass(600).await;
    assert!(status.next.is_none(), "{status:?}");
    assert_eq!(status.refused.as_ref().map(|r| r.reason.as_str()), Some("revoked"));
    assert_eq!(bench.slots().current().unwrap().unwrap(), old);
    assert!(status.findings().iter().any(|(what, _)| what.en.contains("given up") && what.zh.contains("放弃")));
    let told = bench.told.lock().unwrap().clone();
    assert!(told.last().is_some_and(|(cap, text)| cap.is_some() && text.contains("refused")), "{told:?}");
    bench.offer((2022, 2048));
    bench.broker(Verdict::Proven, true);
    let status = bench.pass(30).await;
    assert_eq!(
        (status.refused, status.current.unwrap().not_before_at.to_string()),
        (None, "2022-01-01T00:00:00Z".into())
    );
    assert_eq!(bench.told.lock().unwrap().last().unwrap().0, None, "and taken back");
}

#[tokio::test]
async fn a_broker_that_is_away_says_nothing_about_a_certificate() {
    let mut bench = Bench::new();
    bench.offer(NOW);
    bench.pass(5).await;
    bench.offer((2021, 2048));
    bench.broker(Verdict::Undecided("no route".into()), false);
    bench.pass(24 * 3600).await;
    assert!(bench.slots().next().unwrap().is_some());
    let trials = bench.words.0.lock().unwrap().2;
    assert!((200..400).contains(&trials), "tried now and then: {trials}");
}

#[tokio::test]
async fn the_end_is_told_once_a_level_and_survives_an_unset_clock() {
    let mut bench = Bench::new();
    bench.offer((2020, 2027));
    bench.pass(10).await;
    let set = |at: &str| *bench.wall.now.lock().unwrap() = at.parse().unwrap();
    let mut keeper = bench.keeper;
    for day in ["2026-12-10T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-02T00:00:00Z"] {
        set(day);
        keeper.look().await;
    }
    *bench.wall.synced.lock().unwrap() = false;
    set("1970-01-01T00:00:00Z");
    keeper.look().await;
    let severities: Vec<_> = bench.told.lock().unwrap().iter().map(|(cap, _)| cap.map(|c| c.1)).collect();
    assert_eq!(severities, [None, Some(Severity::Minor), Some(Severity::Moderate), Some(Severity::Severe)]);
    let status = bench.status.borrow().clone();
    assert_eq!((status.level, status.clock_known), (Level::Over, false));
}
