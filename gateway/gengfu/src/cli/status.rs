//! `gengfu status`: how the running gateway is.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use jiff::Timestamp;

use super::SocketArgs;
use crate::cameras::ladder::Rung;
use crate::local::report::Report;
use crate::local::socket::{Answer, Query, ask};
use crate::settings::ConfigStatus;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &Args) -> anyhow::Result<ExitCode> {
    let path = args.socket.path()?;
    let answer = super::block_on(ask(&path, &Query::Status))??;
    let Answer::Status(report) = answer else {
        anyhow::bail!("the gateway answered something else; is it another version?")
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let paint = Paint(std::io::stdout().is_terminal());
        print(&mut out, &report, &paint)?;
    }
    let well = report.findings.is_empty() && report.alarms.iter().all(|alarm| !alarm.kind.is_trouble());
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(super::NO) })
}

/// Colour, on a terminal only.
struct Paint(bool);

impl Paint {
    fn as_good(&self, good: bool, text: &str) -> String {
        match (self.0, good) {
            (false, _) => text.to_owned(),
            (true, true) => format!("\x1b[32m{text}\x1b[0m"),
            (true, false) => format!("\x1b[31m{text}\x1b[0m"),
        }
    }
}

fn print(out: &mut impl Write, report: &Report, paint: &Paint) -> std::io::Result<()> {
    let g = &report.gateway;
    let since = g.started_at.map_or_else(|| "starting".to_owned(), |at| format!("up {}", ago(at, g.now)));
    writeln!(
        out,
        "gateway  {}/{}  {since}, start {}, version {} (contract {}), clock {:?}, {} MiB",
        g.site,
        g.name,
        g.boot,
        g.version,
        g.contract,
        g.clock,
        g.memory_bytes >> 20
    )?;
    let u = &report.uplink;
    let state = format!("{:?}", u.state).to_lowercase();
    let latency = u
        .latency
        .map_or_else(String::new, |l| format!(", life safety to receipt p50 {} ms p99 {} ms", l.p50_ms, l.p99_ms));
    writeln!(
        out,
        "uplink   {}  {} (MQTT {}) since {}, {} on the way, {} await receipt{latency}",
        paint.as_good(state == "online", &state),
        u.broker,
        u.protocol,
        ago(u.since, g.now),
        u.in_flight,
        u.awaiting_receipt
    )?;
    for broker in u.brokers.iter().filter(|broker| !broker.in_use) {
        let why = broker.why.zip(broker.failed_at);
        let why = why.map_or_else(String::new, |(why, at)| format!("left {} ago: {}", ago(at, g.now), why.text().en));
        writeln!(out, "         {}  not in use  {why}", broker.address)?;
    }
    if let Some(current) = report.identity.as_ref().and_then(|identity| identity.current.as_ref()) {
        let good = report.identity.as_ref().is_some_and(|identity| identity.findings().is_empty());
        let until = current.not_after_at.strftime("%F");
        writeln!(
            out,
            "identity {}  {} until {until}",
            paint.as_good(good, if good { "good" } else { "look" }),
            current.common_name
        )?;
    }
    if let Some(config) = &report.config {
        print_config(out, config, g.now, paint)?;
    }
    let o = &report.outbox;
    writeln!(out, "outbox   {}  journal at #{}", paint.as_good(o.health == "ok", &o.health), o.sequence)?;
    for lane in o.lanes.iter().filter(|lane| lane.pending > 0 || lane.dropped > 0) {
        let oldest = lane.oldest_at.map_or_else(String::new, |at| format!(", oldest {} ago", ago(at, g.now)));
        writeln!(out, "         {:<10} {} pending{oldest}, {} dropped", lane.lane, lane.pending, lane.dropped)?;
    }
    for link in &report.links {
        let heard =
            link.last_heard_at.map_or_else(|| "never heard".to_owned(), |at| format!("heard {} ago", ago(at, g.now)));
        writeln!(
            out,
            "link     {}  {} on {}, {heard}",
            paint.as_good(link.is_up(), &link.state),
            link.node,
            link.port
        )?;
    }
    for (node, update) in report.links.iter().filter_map(|link| Some((&link.node, link.update.as_ref()?))) {
        let problem = update.problem.as_ref().map_or_else(String::new, |text| format!(": {}", text.en));
        let (sent, total) = (update.sent_bytes, update.total_bytes);
        writeln!(out, "update   {node}  {:?}, {sent} of {total} bytes{problem}", update.stage)?;
    }
    for line in &report.sensors {
        let heard = line.devices.iter().filter(|device| device.up == Some(true)).count();
        writeln!(
            out,
            "sensors  {}  {} at {}, {heard} of {} heard",
            paint.as_good(line.up, &line.state),
            line.name,
            line.place,
            line.devices.len()
        )?;
    }
    for (shelf, terms) in &report.standing.shelved {
        let text = paint.as_good(false, "SHELVED");
        writeln!(
            out,
            "aside    {text}  {} {} until {}: {} ({})",
            shelf.device, shelf.kind, terms.until, terms.reason, terms.who
        )?;
    }
    for (device, service, terms) in &report.standing.services {
        let text = paint.as_good(false, service.state().as_str());
        writeln!(out, "aside    {text}  {device} until {}: {} ({})", terms.until, terms.reason, terms.who)?;
    }
    for rejected in &report.standing.rejected {
        let reasons: Vec<String> =
            rejected.reasons.iter().map(|(reason, count)| format!("{reason} {count}×")).collect();
        writeln!(out, "rejected {} {}: {}", rejected.device, rejected.kind, reasons.join(", "))?;
    }
    if let Some(last) = report.standing.drills.history.last() {
        let latency = last.latency_ms.map_or_else(|| "no receipt".to_owned(), |ms| format!("receipt after {ms} ms"));
        writeln!(out, "drill    {} ago, {latency}", ago(last.began_at, g.now))?;
    }
    for on in &report.on_site {
        writeln!(out, "on site  {}  {}", paint.as_good(false, on.pattern.title().en.as_str()), on.output)?;
    }
    for device in &report.devices {
        let battery = device.battery_mv.map_or_else(String::new, |mv| format!(", battery {mv} mV"));
        let troubles = device.troubles.iter().map(|t| format!(" [{}]", t.title().en)).collect::<String>();
        writeln!(
            out,
            "device   {:<18} {} {}{battery}{}",
            device.device,
            device.class,
            device.state,
            paint.as_good(false, &troubles)
        )?;
    }
    for c in &report.cameras {
        let memory = c.worker_memory_bytes >> 20;
        writeln!(
            out,
            "camera   {}  {} {}, {:.1} pictures/s, detector {} ms, {} tracks, {} shed, {memory} MiB with {} other(s), {} start(s)",
            paint.as_good(c.is_streaming(), &c.state),
            c.camera,
            c.source,
            c.frames_per_s,
            c.inference_us / 1000,
            c.tracks,
            c.shed,
            c.worker_fellows,
            c.worker_starts
        )?;
    }
    if report.shedding.rung != Rung::Whole {
        let (level, load) = (report.shedding.rung.level(), report.shedding.cpu_share * 100.0);
        let since = report.shedding.since.map_or_else(String::new, |since| format!(" since {} ago", ago(since, g.now)));
        writeln!(
            out,
            "shedding {}  level {level}{since}, cameras take {load:.0} %",
            paint.as_good(false, report.shedding.rung.words().1)
        )?;
    }
    for alarm in &report.alarms {
        let place = alarm.location.as_ref().and_then(|l| l.text.as_deref()).unwrap_or("");
        let title = format!("{} {}", alarm.title.zh, alarm.title.en);
        writeln!(
            out,
            "alarm    {}  {} {} {place} since {} ago, rev {}, {}",
            paint.as_good(false, &title),
            alarm.condition,
            alarm.device,
            ago(alarm.since, g.now),
            alarm.rev,
            alarm.alarm_id
        )?;
    }
    for finding in &report.findings {
        writeln!(out, "{}  {}\n         → {}", paint.as_good(false, "wrong   "), finding.problem, finding.remedy)?;
        if let (Some(problem), Some(remedy)) = (&finding.problem_zh, &finding.remedy_zh) {
            writeln!(out, "         {problem}\n         → {remedy}")?;
        }
    }
    if report.findings.is_empty() {
        writeln!(out, "{}", paint.as_good(true, "nothing is wrong"))?;
    }
    Ok(())
}

/// One line on the configuration, and one on a trial.
fn print_config(out: &mut impl Write, config: &ConfigStatus, now: Timestamp, paint: &Paint) -> std::io::Result<()> {
    let which = config.counter.map_or_else(
        || config.file.display().to_string(),
        |counter| format!("bundle {counter}, in use since {} ago", ago(config.since, now)),
    );
    let hash: String = config.sha256.chars().take(12).collect();
    writeln!(out, "config   {which}, SHA-256 {hash}")?;
    if let Some(trial) = &config.trial {
        let text = paint.as_good(false, "on trial");
        writeln!(
            out,
            "         {text}  bundle {} for {}, start {} of {}, {} s left, needs {:?}",
            trial.counter, trial.asked.operator, trial.starts, trial.starts_max, trial.left_s, trial.need
        )?;
    }
    Ok(())
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    let s = now.duration_since(at).as_secs().max(0);
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}
