//! Process 1 of a node: prepares the namespaces that it was started in, then keeps the wanted programs running.
//!
//! A program is wanted while the file `wanted/NAME` exists, and is running while `running/NAME` does. Whoever works
//! on the cluster only makes and removes those files. What ends while it is wanted is started again; orphans of pods
//! are reaped. Killing this process ends everything in its namespaces.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, wait},
};

use super::{components::Component, config::NODE_ADDRESSES, say};

const AGAIN: Duration = Duration::from_millis(50);
/// Between the end of a program that is wanted and its next start.
const BACKOFF: Duration = Duration::from_secs(1);
/// Between SIGTERM and SIGKILL for a program that is not wanted any more.
const GRACE: Duration = Duration::from_secs(5);

/// Folders that the node's programs write to and that no option moves.
const COVERED: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// Runs as process 1; returns only when the node cannot be prepared.
///
/// # Errors
/// With the step that failed.
pub fn run(folder: &Path, programs: &Path) -> anyhow::Result<Infallible> {
    ensure!(std::process::id() == 1, "not process 1 of a namespace: `weft-cluster up` starts it");
    let components: Vec<Component> =
        serde_json::from_slice(&fs::read(folder.join("components.json"))?)?;
    prepare_mounts(&[folder, programs])?;
    prepare_network()?;
    fs::write(folder.join("running/init"), "1")?;
    Supervisor::new(folder, components).run()
}

fn step(line: &str) -> anyhow::Result<()> {
    let mut words = line.split(' ');
    let program = words.next().context("a command")?;
    command(Command::new(program).args(words), line)
}

fn command(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| what.to_owned())?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn mount(arguments: &[&str], what: &Path, target: &Path) -> anyhow::Result<()> {
    let name = format!("mount {} on {}", what.display(), target.display());
    command(Command::new("mount").args(arguments).arg(what).arg(target), &name)
}

/// Covers what must not be shared with the machine, but for the folders that the node is made of.
fn prepare_mounts(kept: &[&Path]) -> anyhow::Result<()> {
    step("mount --make-rprivate /")?;
    step("mount --make-rshared /")?;
    let empty = ["-t", "tmpfs", "-o", "mode=755"];
    for covered in COVERED.map(Path::new) {
        let inside: Vec<_> = kept.iter().filter(|path| path.starts_with(covered)).collect();
        let aside = Path::new("/mnt");
        let places: Vec<PathBuf> =
            (0..inside.len()).map(|index| aside.join(index.to_string())).collect();
        if !inside.is_empty() {
            mount(&empty, Path::new("aside"), aside)?;
        }
        for (path, place) in inside.iter().zip(&places) {
            fs::create_dir_all(place)?;
            mount(&["--bind"], path, place)?;
        }
        mount(&empty, Path::new("node"), covered)?;
        for (path, place) in inside.iter().zip(&places) {
            fs::create_dir_all(path)?;
            mount(&["--bind"], place, path)?;
        }
        if !inside.is_empty() {
            command(Command::new("umount").args(["--recursive", "--lazy"]).arg(aside), "umount")?;
        }
    }
    for path in ["/run/netns", "/var/log/containers", "/var/lib/kubelet", "/var/lib/cni"] {
        fs::create_dir_all(path)?;
    }
    step("mount --make-rshared /")
}

/// A bridge for the node's addresses. A connection to a Service's address is routed before it is translated, so
/// there are default routes, though nothing is behind them.
fn prepare_network() -> anyhow::Result<()> {
    let [v4, v6] = NODE_ADDRESSES;
    for line in [
        "hostname node",
        "ip link set lo up",
        "ip link add node0 type bridge",
        &format!("ip address add {v4}/24 dev node0"),
        &format!("ip -6 address add {v6}/64 dev node0 nodad"),
        "ip link set node0 up",
        "ip route add default dev node0",
        "ip -6 route add default dev node0",
    ] {
        step(line)?;
    }
    for (name, value, required) in [
        ("ipv4/ip_forward", "1", true),
        ("ipv6/conf/all/forwarding", "1", true),
        // Not there when the kernel has no br_netfilter; traffic between pods of one bridge is then not seen by kube-proxy.
        ("bridge/bridge-nf-call-iptables", "1", false),
        ("bridge/bridge-nf-call-ip6tables", "1", false),
        ("ipv4/conf/all/rp_filter", "0", true),
        ("ipv4/conf/default/rp_filter", "0", true),
    ] {
        let path = format!("/proc/sys/net/{name}");
        match fs::write(&path, value) {
            Err(error) if required => return Err(error).with_context(|| path),
            _ => {}
        }
    }
    Ok(())
}

struct Supervised {
    component: Component,
    running: Option<Pid>,
    not_before: Instant,
    told_to_end: Option<Instant>,
}

struct Supervisor {
    folder: PathBuf,
    programs: BTreeMap<String, Supervised>,
}

impl Supervisor {
    fn new(folder: &Path, components: Vec<Component>) -> Self {
        let programs = components.into_iter().map(|component| {
            let name = component.name.clone();
            let not_before = Instant::now();
            (name, Supervised { component, running: None, not_before, told_to_end: None })
        });
        Self { folder: folder.to_path_buf(), programs: programs.collect() }
    }

    fn run(mut self) -> anyhow::Result<Infallible> {
        loop {
            while let Some(pid) = reap()? {
                self.ended(pid);
            }
            let folder = self.folder.clone();
            for (name, program) in &mut self.programs {
                let wanted = folder.join("wanted").join(name).exists();
                if let Err(error) = program.converge(&folder, wanted) {
                    say(&format!("{name}: {error:#}"));
                    program.not_before = Instant::now() + BACKOFF;
                }
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn ended(&mut self, pid: Pid) {
        for (name, program) in &mut self.programs {
            if program.running == Some(pid) {
                say(&format!("{name} ended"));
                let _ = fs::remove_file(self.folder.join("running").join(name));
                program.running = None;
                program.not_before = Instant::now() + BACKOFF;
            }
        }
    }
}

/// One process that ended, if there is one.
fn reap() -> anyhow::Result<Option<Pid>> {
    match wait(WaitOptions::NOHANG) {
        Ok(ended) => Ok(ended.map(|(pid, _)| pid)),
        Err(Errno::CHILD | Errno::INTR) => Ok(None),
        Err(error) => Err(error).context("wait"),
    }
}

impl Supervised {
    fn converge(&mut self, folder: &Path, wanted: bool) -> anyhow::Result<()> {
        match self.running {
            None if wanted && Instant::now() >= self.not_before => self.start(folder),
            Some(pid) if !wanted => {
                let asked = *self.told_to_end.get_or_insert_with(Instant::now);
                let signal = if asked.elapsed() < GRACE { Signal::TERM } else { Signal::KILL };
                kill_process(pid, signal).context("cannot be ended")
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, folder: &Path) -> anyhow::Result<()> {
        let name = &self.component.name;
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join(format!("logs/{name}.log")))?;
        // Reaped by number, with everything else that process 1 inherits.
        let child = Command::new(&self.component.program)
            .args(&self.component.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot be started")?;
        self.running = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.told_to_end = None;
        fs::write(folder.join("running").join(name), child.id().to_string())?;
        say(&format!("{name} started"));
        Ok(())
    }
}
