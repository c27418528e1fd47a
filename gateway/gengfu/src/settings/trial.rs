//! Whether a configuration that is tried has proven itself.
//!
//! Owns the judgement: proven, failed, or not known yet. It takes time and what was seen as arguments. A fire does not wait for it: when a life-safety alarm
//! is raised while a configuration on trial has no proof of its uplink, the trial ends at once, so that the alarm leaves the way that worked before.

use std::time::Duration;

use gengfu_contract::words::Text;
use jiff::SignedDuration;

use super::slots::Need;

/// A life-safety alarm may wait so long for a trial: GB 26875.1 gives 10 s, and going back takes some of them.
pub const ALARM_WAITS: Duration = Duration::from_secs(3);

/// What is seen of the uplink and the outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The broker has taken the subscription to commands.
    pub is_listening: bool,
    /// A receipt of the centre came since this start.
    pub has_receipt: bool,
    /// Life-safety items that the centre has not received.
    pub alarms_pending: u64,
    /// What is wrong with the uplink, in its own words.
    pub uplink_problem: Option<Text>,
}

/// What is known now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Look again.
    Wait,
    /// It has proven itself.
    Keep,
    /// It has failed, with the reason.
    GiveUp(Text),
}

/// The trial of one start.
#[derive(Debug, Clone)]
pub struct Judge {
    need: Need,
    window: Duration,
    began: SignedDuration,
    /// Fewest life-safety items that waited so far: those were there before.
    alarms_before: u64,
    alarm_since: Option<SignedDuration>,
}

impl Judge {
    /// A trial that begins at `uptime`. `alarms_before`: life-safety items that waited when it was accepted.
    #[must_use]
    pub fn new(need: Need, window: Duration, uptime: SignedDuration, alarms_before: u64) -> Self {
        Self { need, window, began: uptime, alarms_before, alarm_since: None }
    }

    /// What `seen` means at `uptime`.
    pub fn look(&mut self, uptime: SignedDuration, seen: &Seen) -> Judgement {
        let proven = match self.need {
            Need::Receipt => seen.has_receipt,
            Need::Subscription => seen.is_listening,
            Need::Nothing => false,
        };
        if proven {
            return Judgement::Keep;
        }
        self.alarms_before = self.alarms_before.min(seen.alarms_pending);
        self.alarm_since = if seen.alarms_pending > self.alarms_before && self.need != Need::Nothing {
            Some(self.alarm_since.unwrap_or(uptime))
        } else {
            None
        };
        if self.alarm_since.is_some_and(|since| is_over(since, uptime, ALARM_WAITS)) {
            return Judgement::GiveUp(Text {
                zh: format!("试用期间出现生命安全报警而上行尚未确认，已恢复原配置{}", zh_of(seen)),
                en: format!("a life-safety alarm came while its uplink was not proven{}", en_of(seen)),
            });
        }
        if !is_over(self.began, uptime, self.window) {
            return Judgement::Wait;
        }
        let seconds = self.window.as_secs();
        match self.need {
            Need::Nothing => Judgement::Keep,
            Need::Receipt => Judgement::GiveUp(Text {
                zh: format!("{seconds} 秒内未收到中心回执{}", zh_of(seen)),
                en: format!("no receipt of the centre within {seconds} s{}", en_of(seen)),
            }),
            Need::Subscription => Judgement::GiveUp(Text {
                zh: format!("{seconds} 秒内未能连上代理并订阅指令{}", zh_of(seen)),
                en: format!("no connection with a subscription to commands within {seconds} s{}", en_of(seen)),
            }),
        }
    }

    /// How much of the window is left.
    #[must_use]
    pub fn left(&self, uptime: SignedDuration) -> Duration {
        self.window.saturating_sub(Duration::try_from(uptime - self.began).unwrap_or_default())
    }
}

fn is_over(since: SignedDuration, now: SignedDuration, lasts: Duration) -> bool {
    Duration::try_from(now - since).is_ok_and(|passed| passed >= lasts)
}

fn zh_of(seen: &Seen) -> String {
    seen.uplink_problem.as_ref().map_or_else(String::new, |problem| format!("：{}", problem.zh))
}

fn en_of(seen: &Seen) -> String {
    seen.uplink_problem.as_ref().map_or_else(String::new, |problem| format!(": {}", problem.en))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn s(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    fn judge(need: Need) -> Judge {
        Judge::new(need, WINDOW, s(1_000), 2)
    }

    /// Two alarms wait for a centre that was away before.
    fn seen() -> Seen {
        Seen { alarms_pending: 2, ..Seen::default() }
    }

    #[test]
    fn only_the_proof_that_is_needed_keeps_it() {
        let listening = Seen { is_listening: true, ..seen() };
        let received = Seen { has_receipt: true, ..listening.clone() };
        assert_eq!(judge(Need::Receipt).look(s(1_299), &listening), Judgement::Wait);
        assert_eq!(judge(Need::Receipt).look(s(1_001), &received), Judgement::Keep);
        assert_eq!(judge(Need::Subscription).look(s(1_001), &listening), Judgement::Keep);
        assert_eq!(judge(Need::Nothing).look(s(1_299), &received), Judgement::Wait);
        assert_eq!(judge(Need::Nothing).look(s(1_300), &seen()), Judgement::Keep);
    }

    #[test]
    fn without_proof_it_fails_at_the_end_of_the_window_and_says_what_the_uplink_said() {
        let problem = Text { zh: "无法连接".into(), en: "no connection".into() };
        let seen = Seen { uplink_problem: Some(problem), ..seen() };
        for need in [Need::Receipt, Need::Subscription] {
            let mut judge = judge(need);
            assert_eq!(judge.look(s(1_299), &seen), Judgement::Wait);
            assert_eq!(judge.left(s(1_299)), Duration::from_secs(1));
            let Judgement::GiveUp(why) = judge.look(s(1_300), &seen) else { panic!("{need:?}") };
            assert!(why.en.contains("no connection") && why.zh.contains("无法连接"), "{why:?}");
        }
    }

    #[test]
    fn a_life_safety_alarm_ends_an_unproven_trial_within_seconds_and_older_ones_do_not() {
        let mut judge = judge(Need::Subscription);
        assert_eq!(judge.look(s(1_100), &seen()), Judgement::Wait, "those two waited before");
        let fire = Seen { alarms_pending: 3, ..seen() };
        assert_eq!(judge.look(s(1_110), &fire), Judgement::Wait);
        assert_eq!(judge.look(s(1_112), &fire), Judgement::Wait);
        assert!(matches!(judge.look(s(1_113), &fire), Judgement::GiveUp(_)));
        // It was received meanwhile, by whatever way.
        let mut judge = super::tests::judge(Need::Receipt);
        judge.look(s(1_110), &fire);
        assert_eq!(judge.look(s(1_112), &seen()), Judgement::Wait);
        assert_eq!(judge.look(s(1_118), &fire), Judgement::Wait, "counted anew");
        let mut judge = super::tests::judge(Need::Nothing);
        judge.look(s(1_110), &fire);
        assert_eq!(judge.look(s(1_200), &fire), Judgement::Wait, "nothing better to go back to");
    }
}
