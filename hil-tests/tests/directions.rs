//! The house's rules that no compiler checks: who may depend on whom, who may create channels and tasks, and
//! that the tree stays tidy. Method: ask cargo for the dependency graph, and read the sources as text. Every
//! checker is shown a planted fault too, so that an empty list of faults means something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hil_tests::clip::repository;
use hil_tests::process::run;

/// Longest source file, in lines. A longer one is two.
const LINES_MAX: usize = 800;

/// Files of `gateway/gengfu/src` that may create channels and start tasks or threads. All others are handed
/// their ends and are run by these.
const MAY_WIRE: [(&str, &str); 3] = [
    ("app.rs", "lists the stages in the order an event meets them and joins them"),
    ("demo", "runs a gateway, nodes, a camera and a desk beside each other for a person to watch"),
    ("load", "runs many gateways and a desk beside each other to measure a broker"),
];

/// What creates a channel, a task or a thread. Not here: `oneshot`, the slot for one answer, which joins no
/// stages; and `Command::spawn`, which starts a process.
const WIRING: [&str; 12] = [
    "::channel(",
    "::channel;",
    "::channel,",
    "::channel::<",
    "sync_channel",
    "tokio::spawn",
    "task::spawn",
    "spawn_blocking(",
    "spawn_local(",
    "JoinSet::new",
    "thread::spawn",
    "thread::Builder",
];

/// Direct and indirect dependencies of the workspace's packages, by name.
struct Graph {
    ours: BTreeSet<String>,
    /// Every kind of dependency, tests' and build scripts' included.
    direct: BTreeMap<String, BTreeSet<String>>,
    /// What ends up in the package's own binary: no dev-dependencies. Of all packages.
    linked: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        command.args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &target]);
        command.arg("--manifest-path").arg(repository().join("Cargo.toml"));
        let text = run(command).expect("cargo metadata knows the workspace these tests were built from");
        Self::parse(&serde_json::from_str(&text).expect("cargo metadata prints JSON"))
    }

    fn parse(metadata: &serde_json::Value) -> Self {
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let packages = list(&metadata["packages"]);
        let names: BTreeMap<String, String> = packages.iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let name = |id: &serde_json::Value| names.get(&text(id)).cloned().unwrap_or_default();
        let mut graph = Self {
            ours: list(&metadata["workspace_members"]).iter().map(name).collect(),
            direct: BTreeMap::new(),
            linked: BTreeMap::new(),
        };
        for node in list(&metadata["resolve"]["nodes"]) {
            let from = name(&node["id"]);
            for dep in list(&node["deps"]) {
                let to = name(&dep["pkg"]);
                if list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev") {
                    graph.linked.entry(from.clone()).or_default().insert(to.clone());
                }
                graph.direct.entry(from.clone()).or_default().insert(to);
            }
        }
        graph
    }

    /// Our packages that `package` names in its Cargo.toml.
    fn ours_of(&self, package: &str) -> BTreeSet<String> {
        let direct = self.direct.get(package).cloned().unwrap_or_default();
        direct.intersection(&self.ours).cloned().collect()
    }

    /// Everything that is linked into `package`.
    fn all_of(&self, package: &str) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut to_see = vec![package.to_owned()];
        while let Some(next) = to_see.pop() {
            for dep in self.linked.get(&next).into_iter().flatten() {
                if seen.insert(dep.clone()) {
                    to_see.push(dep.clone());
                }
            }
        }
        seen
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut forbid = |package: &str, found: BTreeSet<String>, why: &str| {
            faults.extend(found.iter().map(|dep| format!("{package} depends on {dep}: {why}")));
        };
        let among = |set: &BTreeSet<String>, names: &[&str]| -> BTreeSet<String> {
            set.iter().filter(|name| names.contains(&name.as_str())).cloned().collect()
        };
        forbid("gengfu-wire", self.ours_of("gengfu-wire"), "both sides compile it, it knows neither");
        let mut of_node = self.ours_of("gengfu-node");
        of_node.remove("gengfu-wire");
        forbid("gengfu-node", of_node, "the node's logic knows only the wire");
        for package in ["gengfu-contract", "gengfu-alarm", "gengfu-outbox", "gengfu-vision"] {
            let upward = ["gengfu", "gengfu-node", "gengfu-node-linux"];
            forbid(package, among(&self.ours_of(package), &upward), "it must stay ignorant of the gateway around it");
        }
        for package in ["gengfu-contract", "gengfu-alarm", "gengfu-wire", "gengfu-node"] {
            forbid(package, among(&self.all_of(package), &["tokio"]), "it runs without a runtime");
        }
        let world = ["tokio", "mio", "sled", "rumqttc", "ort", "ffmpeg-next", "image", "tempfile"];
        forbid("gengfu-alarm", among(&self.all_of("gengfu-alarm"), &world), "it knows no disk, network or image");
        for package in &self.ours {
            let direct = self.ours_of(package);
            forbid(package, among(&direct, &["hil-tests"]), "production never depends on its tests");
            // `gengfu node` runs the simulated node; that is the one way a board gets into the gateway.
            if !["gengfu", "hil-tests"].contains(&package.as_str()) {
                forbid(package, among(&direct, &["gengfu-node-linux"]), "nothing depends on a board");
            }
        }
        faults
    }
}

#[test]
fn crates_depend_only_in_the_houses_directions() {
    let graph = Graph::read();
    let expected =
        ["gengfu", "gengfu-alarm", "gengfu-contract", "gengfu-node", "gengfu-outbox", "gengfu-vision", "gengfu-wire"];
    for package in expected {
        assert!(graph.ours.contains(package), "{package} is gone: these rules must be told its new name");
    }
    let faults = graph.faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_planted_dependency_is_found_also_behind_another_one() {
    let node = |id: &str, deps: &[(&str, Option<&str>)]| {
        let deps = deps.iter().map(|(to, kind)| serde_json::json!({"pkg": to, "dep_kinds": [{"kind": kind}]}));
        serde_json::json!({"id": id, "deps": deps.collect::<Vec<_>>()})
    };
    let names = ["gengfu", "gengfu-alarm", "gengfu-contract", "gengfu-wire", "hil-tests", "runner", "tokio"];
    let metadata = serde_json::json!({
        "packages": names.map(|name| serde_json::json!({"id": name, "name": name})),
        "workspace_members": ["gengfu", "gengfu-alarm", "gengfu-contract", "gengfu-wire", "hil-tests"],
        "resolve": {"nodes": [
            node("gengfu-alarm", &[("runner", None)]),
            node("runner", &[("tokio", None)]),
            node("gengfu-contract", &[("tokio", Some("dev"))]),
            node("gengfu-wire", &[("gengfu-contract", Some("dev"))]),
            node("gengfu", &[("hil-tests", Some("dev"))]),
            node("hil-tests", &[("gengfu", None)]),
        ]},
    });
    let faults = Graph::parse(&metadata).faults();
    let found = |start: &str| faults.iter().filter(|fault| fault.starts_with(start)).count();
    assert_eq!(found("gengfu-alarm depends on tokio"), 2, "{faults:#?}");
    assert_eq!(found("gengfu-wire depends on gengfu-contract"), 1, "{faults:#?}");
    assert_eq!(found("gengfu depends on hil-tests"), 1, "{faults:#?}");
    // A runtime for a crate's own tests is allowed.
    assert_eq!(faults.len(), 4, "{faults:#?}");
}

/// A source without its tests: what stands before the first test module.
fn production(source: &str) -> &str {
    source.find("#[cfg(test)]\nmod ").map_or(source, |end| &source[..end])
}

/// Lines of `source` that have one of `words` outside a comment, numbered from 1.
fn lines_with<'a>(source: &'a str, words: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let numbered = source.lines().enumerate().map(|(at, line)| (at + 1, line)).filter(move |(_, l)| code(l));
    numbered.filter(|(_, line)| words.iter().any(|word| line.replace("oneshot::channel", "").contains(word)))
}

#[test]
fn only_the_app_creates_channels_and_tasks_in_the_gateway() {
    let root = repository().join("gateway/gengfu/src");
    let mut faults = Vec::new();
    for file in files(&root, &["rs"]) {
        let inside = file.strip_prefix(&root).expect("found under it");
        let free =
            MAY_WIRE.iter().any(|(place, _)| inside.starts_with(place) || inside == Path::new(&format!("{place}.rs")));
        let tests = inside.ends_with("tests.rs") || inside.components().any(|part| part.as_os_str() == "tests");
        if free || tests {
            continue;
        }
        let source = read(&file);
        for (at, line) in lines_with(production(&source), &WIRING) {
            faults.push(format!("{}:{at}: {}", inside.display(), line.trim()));
        }
    }
    assert!(faults.is_empty(), "channels, tasks and threads are app.rs's:\n{}", faults.join("\n"));
}

#[test]
fn a_planted_channel_is_found_and_one_in_a_test_or_comment_is_not() {
    let source = "// mpsc::channel(1)\nlet (a, b) = mpsc::channel(1);\nlet x = oneshot::channel();\n\
                  tokio::spawn(f());\n#[cfg(test)]\nmod tests {\n    thread::spawn(g);\n}\n";
    let found: Vec<usize> = lines_with(production(source), &WIRING).map(|(at, _)| at).collect();
    assert_eq!(found, [2, 4]);
}

#[test]
fn what_runs_on_a_microcontroller_says_no_std() {
    for package in ["wire", "node"] {
        let source = read(&repository().join("firmware").join(package).join("src/lib.rs"));
        let said = source.lines().any(|line| {
            line.starts_with("#![no_std]") || (line.starts_with("#![cfg_attr(not(") && line.ends_with("no_std)]"))
        });
        assert!(said, "firmware/{package}/src/lib.rs does not say #![no_std]");
    }
}

#[test]
fn the_rules_read_no_clock_disk_or_network() {
    let world =
        ["std::fs", "std::net", "std::process", "std::thread", "SystemTime::now", "Instant::now", "Timestamp::now"];
    let mut faults = Vec::new();
    for file in files(&repository().join("gateway/alarm/src"), &["rs"]) {
        let source = read(&file);
        faults.extend(
            lines_with(production(&source), &world).map(|(at, line)| format!("{}:{at}: {line}", file.display())),
        );
    }
    assert!(faults.is_empty(), "`alarm` is pure:\n{}", faults.join("\n"));
}

#[test]
fn sources_are_short_have_no_tabs_and_open_by_saying_what_they_own() {
    let mut faults = Vec::new();
    for file in files(repository(), &["rs", "py", "sh", "toml", "md"]) {
        let text = read(&file);
        let name = file.strip_prefix(repository()).unwrap_or(&file).display();
        if text.lines().count() > LINES_MAX {
            faults.push(format!("{name}: {} lines, more than {LINES_MAX}", text.lines().count()));
        }
        if let Some(at) = text.lines().position(|line| line.contains('\t')) {
            faults.push(format!("{name}:{}: a tab", at + 1));
        }
        let opens = text.lines().find(|line| !line.starts_with("#![") && !line.trim().is_empty());
        if file.extension().is_some_and(|e| e == "rs") && !opens.is_some_and(|line| line.starts_with("//!")) {
            faults.push(format!("{name}: does not open with a paragraph (//!) on what it owns and refuses"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    // Put together here, or this file would be the first finding.
    let places = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat(), ["/tmp", "/t/"].concat()];
    let kinds = ["rs", "py", "sh", "toml", "md", "json", "yaml", "conf", "service", ""];
    let mut faults = Vec::new();
    for file in files(repository(), &kinds) {
        for (at, line) in read(&file).lines().enumerate() {
            if places.iter().any(|place| line.contains(place.as_str())) {
                faults.push(format!("{}:{}: {}", file.display(), at + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn both_readmes_tell_the_two_commands_and_have_the_same_sections() {
    let headings = |name: &str| -> Vec<usize> {
        let text = read(&repository().join(name));
        for command in ["make demo", "make test"] {
            assert!(text.contains(command), "{name} does not tell `{command}`");
        }
        // A `#` inside a code block is a shell's comment.
        let outside = text.split("```").step_by(2).flat_map(str::lines);
        outside.filter(|l| l.starts_with('#')).map(|l| l.chars().take_while(|c| *c == '#').count()).collect()
    };
    assert_eq!(headings("README.md"), headings("README.zh.md"), "levels of the headings, in order");
}

fn read(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_else(|e| panic!("read {}: {e}", file.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Files under `root` whose name ends in one of these extensions ("" is a file without one). Not what was built, downloaded or generated.
fn files(root: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    // What `make demo` leaves behind.
    let demo = repository().join("demo");
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display())).flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().expect("the kind of a directory entry");
            if kind.is_dir()
                && path != demo
                && !["target", ".git", "__pycache__", "node_modules"].iter().any(|skip| name == *skip)
            {
                folders.push(path);
            } else if kind.is_file() {
                let extension = path.extension().map_or_else(String::new, |e| e.to_string_lossy().into_owned());
                if extensions.contains(&extension.as_str()) {
                    found.push(path);
                }
            }
        }
    }
    assert!(!found.is_empty(), "no files under {}", root.display());
    found.sort();
    found
}
