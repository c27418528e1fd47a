//! The desk without a terminal: one line per event, for people or as JSON for programs.
//!
//! Owns the words of those lines. stdout gets nothing else; a reader that goes away ends it without complaint.

use std::io::Write;

use tokio::sync::mpsc;

use super::sequence::Arrival;
use super::told::DeskEvent;

/// The line for people; `None` for what only repeats or confirms.
#[must_use]
pub fn line(event: &DeskEvent) -> Option<String> {
    Some(match event {
        DeskEvent::Connected { broker } => format!("已连接 connected to {broker}"),
        DeskEvent::Disconnected { reason, remedy } => format!("已断开 disconnected: {reason}; {remedy}"),
        DeskEvent::Gateway { gateway, status } => {
            format!("网关 gateway {gateway} {:?} (boot {})", status.state, status.boot)
        }
        DeskEvent::Alarm { arrival: Arrival::Duplicate | Arrival::Again, .. }
        | DeskEvent::Observed { arrival: Arrival::Duplicate | Arrival::Again, .. }
        | DeskEvent::Statement { .. } => return None,
        DeskEvent::Presence { gateway, there, since } => {
            let (word, since) = (there.text(), since.map(|at| format!(" since {}", at.strftime("%H:%M:%SZ"))));
            format!("网关 gateway {gateway} {} {}{}", word.zh, word.en, since.unwrap_or_default())
        }
        DeskEvent::Proof { gateway, last, findings, .. } => match findings.first() {
            None => format!("证明 proof of {gateway}: 完整 whole, 1…{}", last.unwrap_or(0)),
            Some(first) => {
                let (text, more) = (first.text(), findings.len() - 1);
                let more = if more > 0 { format!(" (+{more})") } else { String::new() };
                format!("证明 proof of {gateway}: {} {}{more}", text.zh, text.en)
            }
        },
        DeskEvent::Alarm { gateway, sequence, alarm, latency_ms, historical, arrival, .. } => {
            let title = &alarm.title;
            let place = alarm.location.as_ref().and_then(|l| l.text.as_deref()).unwrap_or("-");
            let late = if *historical { " 补传 sent late" } else { "" };
            let odd = if *arrival == Arrival::Conflict { " CONFLICT" } else { "" };
            format!(
                "{} {}  {}  {gateway}/{} {place}  {latency_ms} ms{late}  #{sequence}{odd}",
                title.zh, title.en, alarm.condition, alarm.device
            )
        }
        DeskEvent::Observed { gateway, sequence, subject, detail, what, latency_ms, arrival, .. } => {
            let odd = if *arrival == Arrival::Conflict { " CONFLICT" } else { "" };
            let what = detail.clone().unwrap_or_else(|| format!("{what:?}"));
            format!("{gateway}/{subject} {what}  {latency_ms} ms  #{sequence}{odd}")
        }
        DeskEvent::Picture { gateway, alarm_id, n, path, genuine } => {
            let word = match genuine {
                Some(true) => "核对一致 hash ok",
                Some(false) => "哈希不符 HASH DIFFERS",
                None => "待核对 not yet checked",
            };
            format!("图片 picture {n} of {gateway}/{alarm_id}: {path} ({word})")
        }
        DeskEvent::Reply { gateway, reply, verb, about } => {
            let reason = reply.reason.as_ref().map(|r| format!(": {} {}", r.zh, r.en)).unwrap_or_default();
            let to = verb.as_ref().map(|verb| format!("{verb} {}", about.as_deref().unwrap_or_default()));
            let to = to.unwrap_or_else(|| reply.cmd_id.clone());
            format!("答复 reply of {gateway} to {to}: {:?}{reason}", reply.outcome)
        }
        DeskEvent::Sent { verb, .. } if verb == "receipt" => return None,
        DeskEvent::Sent { gateway, verb, about } => format!("已发 sent {verb} {about} to {gateway}"),
        DeskEvent::Fault { place, reason } => format!("异常 fault at {place}: {reason}"),
    })
}

/// Writes events until the channel ends or the reader goes away. With `as_json` every event is one JSON line.
///
/// # Errors
/// When writing fails for another reason than a reader that went away.
pub async fn follow(mut events: mpsc::Receiver<DeskEvent>, as_json: bool, mut out: impl Write) -> std::io::Result<()> {
    while let Some(event) = events.recv().await {
        let text = if as_json { serde_json::to_string(&event).ok() } else { line(&event) };
        let Some(text) = text else { continue };
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(fault) if fault.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gengfu_contract::slug::Slug;
    use gengfu_contract::words::{AlarmKind, Condition};

    use super::super::model::DeskModel;
    use gengfu_contract::testing::{alarm, at};

    fn smoke(times: usize) -> Vec<DeskEvent> {
        let mut model = DeskModel::new(Slug::new("s").unwrap());
        let body = serde_json::to_vec(&alarm(1, 1, AlarmKind::Smoke, Condition::ActiveUnack, None)).unwrap();
        (0..times).flat_map(|_| model.take("gengfu/v1/s/g/event", &body, at(1)).events).collect()
    }

    #[test]
    fn an_alarm_line_has_both_languages_the_condition_and_the_latency() {
        let text = line(&smoke(1)[0]).unwrap();
        for part in ["烟雾报警", "Smoke alarm", "ACTIVE_UNACK", "g/device-1", "1000 ms", "#1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(line(&smoke(2)[1]), None, "a duplicate is no news");
    }

    #[tokio::test]
    async fn every_event_is_one_json_line() {
        let (sender, receiver) = mpsc::channel(8);
        for event in smoke(2) {
            sender.send(event).await.unwrap();
        }
        drop(sender);
        let mut out = Vec::new();
        follow(receiver, true, &mut out).await.unwrap();
        let lines: Vec<serde_json::Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["event"], &lines[1]["arrival"]), (&"alarm".into(), &"duplicate".into()));
    }
}
