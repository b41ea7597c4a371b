//! A network namespace for one test: its own thread lives there, with a pod's address and a route to everywhere else.
//!
//! Needs root and the commands `unshare` and `ip`; where they are missing, tests say so and end.

use std::{
    fs::File,
    io::Write as _,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The pod's addresses.
pub const POD: [&str; 2] = ["10.1.2.3", "fd00:1::3"];

/// Ends the process that holds a namespace.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says, past what the test harness swallows, what is not tested here.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Runs a test in a namespace of its own.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        skip("a network namespace needs root");
        return;
    }
    let Ok(holder) = hold() else {
        skip("no command unshare");
        return;
    };
    let thread = std::thread::spawn(move || {
        let namespace = File::open(format!("/proc/{}/ns/net", holder.0.id())).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        if furnish() {
            test();
        } else {
            skip("no command ip, or no virtual interfaces");
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A process in a namespace of its own.
fn hold() -> std::io::Result<Holder> {
    let link = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let mut command = Command::new("unshare");
    command.args(["--net", "sleep", "600"]).stdin(Stdio::null());
    let holder = Holder(command.spawn()?);
    let since = Instant::now();
    while link(&holder.0.id().to_string()).is_none_or(|held| Some(held) == link("self")) {
        assert!(since.elapsed() < Duration::from_secs(60), "no namespace");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(holder)
}

fn furnish() -> bool {
    let [v4, v6] = POD;
    [
        "link set lo up",
        "link add eth0 type veth peer name outside",
        "link set eth0 up",
        "link set outside up",
        &format!("addr add {v4}/24 dev eth0"),
        &format!("addr add {v6}/64 dev eth0 nodad"),
        "route add default via 10.1.2.1",
        "-6 route add default via fd00:1::1",
    ]
    .iter()
    .all(|line| {
        let status = Command::new("ip").args(line.split(' ')).status();
        status.is_ok_and(|status| status.success())
    })
}
