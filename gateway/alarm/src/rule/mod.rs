//! The rules, one module each: what they watch, when they raise, what clears.
//!
//! Owns what all of them share: the context of one decision. A rule refuses to touch another rule's memory, and never
//! makes an event itself: it tells the book.

use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use crate::book::{Book, News, Subject};
use crate::explain::Why;
use crate::observation::Observation;
use crate::output::Output;
use crate::rules::Rules;

pub(crate) mod camera;
pub(crate) mod care;
pub(crate) mod door;
pub(crate) mod equipment;
pub(crate) mod litter;
pub(crate) mod lost;
pub(crate) mod night;
pub(crate) mod parking;
pub(crate) mod scene;
pub(crate) mod smoke;
pub(crate) mod sos;
pub(crate) mod supervision;

/// One decision being made: the rules, the book, the time, and what comes of it.
pub(crate) struct Decision<'a> {
    pub rules: &'a Rules,
    pub book: &'a mut Book,
    pub now: Timestamp,
    pub out: &'a mut Vec<Output>,
}

impl Decision<'_> {
    /// The cause is there since `since`.
    pub fn raise(&mut self, subject: &Subject, since: Timestamp, news: News) {
        let transition = self.book.raise(self.rules, self.now, subject, since, None, news);
        self.out.extend(transition.map(Output::Alarm));
    }

    /// As [`Decision::raise`], under an id given before.
    pub fn raise_as(&mut self, id: &str, subject: &Subject, since: Timestamp, news: News) {
        let transition = self.book.raise(self.rules, self.now, subject, since, Some(id.to_owned()), news);
        self.out.extend(transition.map(Output::Alarm));
    }

    /// The cause came once more.
    pub fn raise_again(&mut self, subject: &Subject, news: News) {
        let transition = self.book.raise_again(self.now, subject, news);
        self.out.extend(transition.map(Output::Alarm));
    }

    /// The cause is worse than it was told.
    pub fn worsen(&mut self, subject: &Subject, news: News) {
        let transition = self.book.worsen(self.now, subject, news);
        self.out.extend(transition.map(Output::Alarm));
    }

    /// Something about an open alarm changed.
    pub fn update(&mut self, subject: &Subject, news: News) {
        let transition = self.book.update(self.now, subject, news);
        self.out.extend(transition.map(Output::Alarm));
    }

    /// The cause is gone.
    pub fn clear(&mut self, subject: &Subject, news: News) {
        let transition = self.book.clear(self.now, subject, news);
        self.out.extend(transition.map(Output::Alarm));
    }

    /// Nobody can tell whether the cause is there.
    pub fn lose_sight(&mut self, subject: &Subject, news: News) {
        let transition = self.book.lose_sight(self.now, subject, news);
        self.out.extend(transition.map(Output::Alarm));
    }
}

/// What is new, with the times and the origin of the observation it comes from.
pub(crate) fn news(seen: &Observation, why: Why) -> News {
    News::at(seen.sensed_at, seen.clock, seen.origin.as_ref(), why)
}

/// Names, as an input of an explanation.
pub(crate) fn names<'a>(slugs: impl IntoIterator<Item = &'a Slug>) -> Vec<String> {
    slugs.into_iter().map(ToString::to_string).collect()
}
