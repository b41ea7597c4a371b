//! The commands of the documents work as they are written.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use weft_e2e::{
    block::Block,
    programs::{Programs, repository},
};

/// The shell commands of a document, in order.
fn commands(document: &str) -> String {
    let text = std::fs::read_to_string(repository().join("docs").join(document)).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.collect()
}

/// Programs that run on are to die with the shell, also when the test is killed.
fn prelude(programs: &Programs) -> String {
    let tether = programs.path("weft-tether");
    let lasting = ["weft-operator", "weft-proxy", "weft-sample"].map(|name| {
        let path = programs.path(name);
        format!("{name}() {{ exec {} $$ {} \"$@\"; }}\n", tether.display(), path.display())
    });
    format!("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}", lasting.concat())
}

#[test]
fn a_mesh_can_be_run_by_hand() {
    let programs = Programs::find().unwrap();
    let block = Block::any().unwrap();
    let home = tempfile::tempdir().unwrap();
    let operator = block.operator().to_string();
    let addresses = block.address(0, 0).to_string();
    let prefix = addresses.trim_end_matches("0.0");
    let folder = programs.path("weft").parent().unwrap().display().to_string();
    let script = commands("without-kubernetes.md")
        .replace("./justw programs\n", "")
        .replace("$PWD/target/programs", &folder)
        .replace("/tmp/weft", &home.path().display().to_string())
        .replace("127.0.0.1", &operator)
        .replace("127.5.", prefix)
        // Job numbers are for people at a terminal.
        .replace("kill %4 %3 %2 %1; wait", "kill $(jobs -p); wait");
    let output = Command::new(programs.path("weft-tether"))
        .args([&std::process::id().to_string(), "bash", "-c", &(prelude(&programs) + &script)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    for expected in [
        "0 errors, 0 warnings",
        "URI=spiffe://cluster.local/ns/default/sa/web",
        " user-service\n",
        "SYNCED",
        "outbound",
        "istio_requests_total{reporter=\"destination\"",
        "\"problems\":[]",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}\n{errors}");
    }
    // By name and by the address that stands for it.
    assert_eq!(text.matches("\"path\":\"/users/1\"").count(), 2, "{text}");
}
