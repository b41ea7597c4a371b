//! Whether a node of Kubernetes can run here: what it needs is tried out, not guessed, and nothing of it stays.
//!
//! Cheap questions come first. What the machine lets a process do is asked in namespaces of their own, as the node's,
//! down to a container that runs. A machine that passes is one where `up` and the tests must succeed.

use std::{
    fs,
    io::{Read, Seek},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{build, control_groups, folder, folder::Folder, go, packages, say};

/// MiB that the node and the tests' pods take.
const MEMORY: u64 = 2 << 10;
/// MiB of memory that building Kubernetes takes.
const MEMORY_TO_BUILD: u64 = 3 << 10;
/// MiB of images, logs and writable layers.
const DISK: u64 = 3 << 10;
/// MiB of Go's own cache, and of what is built.
const DISK_TO_BUILD: u64 = 8 << 10;
/// Beyond what trying out takes on a busy machine; a step that hangs is one that fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same for what is fetched.
const PATIENCE_TO_FETCH: Duration = Duration::from_secs(900);

/// Fails with the reason why no node can run here.
///
/// # Errors
/// With that reason.
pub fn run() -> anyhow::Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "a local cluster needs Linux; set KUBECONFIG to use another one"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "a local cluster needs root (namespaces, control groups); set KUBECONFIG to use another one"
    );
    let folder = Folder::of("check")?;
    let _lock = folder.lock()?;
    let built = build::is_ready()?;
    room(&folder, built)?;
    kernel_settings()?;
    packages::install(&packages::missing())?;
    let tried = control_groups::make(&folder)
        .and_then(|()| control_groups_hold_processes(&folder))
        .and_then(|()| try_out(&folder));
    let removed = control_groups::remove(&folder);
    if folder.root().exists() {
        fs::remove_dir_all(folder.root())
            .with_context(|| format!("cannot remove {}", folder.root().display()))?;
    }
    tried?;
    removed?;
    if !built {
        sources_come_in()?;
    }
    Ok(())
}

/// Memory and disk.
fn room(folder: &Folder, built: bool) -> anyhow::Result<()> {
    let memory = available_memory()?;
    let needed = if built { MEMORY } else { MEMORY_TO_BUILD };
    ensure!(memory >= needed, "{memory} MiB of memory are available; {needed} are needed");
    fs::create_dir_all(folder.root())?;
    enough_disk(folder.root(), DISK)?;
    if !built {
        let cache = folder::cache()?;
        fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
        enough_disk(&cache, DISK_TO_BUILD)?;
    }
    Ok(())
}

/// MiB, by what the kernel says and what the control group of this process allows.
fn available_memory() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = available.and_then(|rest| rest.split_whitespace().next());
    let kilobytes: u64 =
        kilobytes.and_then(|number| number.parse().ok()).context("no MemAvailable")?;
    // Where this process is the first of a container, its limit is at the root of what it sees.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    Ok(limit.map_or(u64::MAX, |bytes: u64| bytes >> 20).min(kilobytes >> 10))
}

fn enough_disk(path: &Path, needed: u64) -> anyhow::Result<()> {
    let room = rustix::fs::statvfs(path).with_context(|| path.display().to_string())?;
    let free = room.f_bavail.saturating_mul(room.f_frsize) >> 20;
    ensure!(free >= needed, "{free} MiB are free in {}; {needed} are needed", path.display());
    Ok(())
}

/// The kubelet reads the kernel's log, and sets what it wants of the kernel where it is set otherwise.
fn kernel_settings() -> anyhow::Result<()> {
    fs::File::open("/dev/kmsg").context("/dev/kmsg cannot be read, and the kubelet must")?;
    for (name, wanted) in [
        ("vm/overcommit_memory", "1"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    ] {
        let path = format!("/proc/sys/{name}");
        let now = fs::read_to_string(&path).with_context(|| path.clone())?;
        if now.trim() != wanted {
            let opened = fs::File::options().write(true).open(&path);
            opened.with_context(|| format!("{path} cannot be written, and the kubelet must"))?;
        }
    }
    Ok(())
}

fn control_groups_hold_processes(folder: &Folder) -> anyhow::Result<()> {
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?;
    let entered = control_groups::enter(folder, child.id());
    let _ = child.kill();
    child.wait()?;
    entered
}

/// What is tried in namespaces of its own: what it is, and the shell's commands. `$D` is a folder.
const STEPS: [(&str, &str); 10] = [
    ("mounts of its own", "mount --make-rprivate / && mount --make-rshared /"),
    ("a tmpfs", "mkdir $D/tmpfs && mount -t tmpfs check $D/tmpfs"),
    (
        "an overlay file system, for containers",
        "cd $D && mkdir lower upper work merged && echo 1 > lower/file && \
         mount -t overlay check -o lowerdir=lower,upperdir=upper,workdir=work merged && \
         echo 2 > merged/file && rm merged/file && cd /",
    ),
    (
        "a bridge with addresses of both families",
        "ip link set lo up && ip link add check0 type bridge && ip address add 172.30.0.2/24 dev check0 && \
         ip -6 address add fd00:30::2/64 dev check0 nodad && ip link set check0 up && \
         ip route add default dev check0 && ip -6 route add default dev check0",
    ),
    (
        "a pair of interfaces, one in another network namespace",
        "mount -t tmpfs check /run && mkdir -p /run/netns && ip netns add check && \
         ip link add check1 type veth peer name check2 && ip link set check2 netns check && \
         ip link set check1 master check0",
    ),
    (
        "forwarding",
        "echo 1 > /proc/sys/net/ipv4/ip_forward && echo 1 > /proc/sys/net/ipv6/conf/all/forwarding && \
         echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter",
    ),
    ("kube-proxy's rules in nftables", "nft -f $D/rules.nft && nft list ruleset"),
    (
        "the CNI plugins' rules in iptables",
        "for i in iptables ip6tables; do $i -w -t nat -N CHECK && \
         $i -w -t nat -A CHECK -m comment --comment check -j MASQUERADE && \
         $i -w -t nat -A POSTROUTING -j CHECK || exit 1; done",
    ),
    ("connection tracking", "conntrack -C"),
    ("a container", "runc --root $D/runc run --bundle $D/bundle weft-check"),
];

/// Rules of the kinds that kube-proxy and the proxy's capture write.
const RULES: &str = "
table ip check {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  set nodes { type ipv4_addr; flags interval; }
  chain endpoint { meta mark set mark or 0x4000; meta l4proto tcp dnat to 10.244.0.2:80; }
  chain balance { numgen random mod 2 vmap { 0 : goto endpoint, 1 : goto endpoint }; }
  chain prerouting {
    type nat hook prerouting priority -100;
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local tcp dport 1 goto balance
  }
  chain output { type nat hook output priority -100; meta skuid 1337 return; tcp dport 80 redirect to :15001; }
  chain forward { type filter hook forward priority 0; ct state invalid drop; ct state new reject; }
  chain postrouting { type nat hook postrouting priority 100; meta mark and 0x4000 != 0 masquerade fully-random; }
}
table ip6 check {
  chain output { type nat hook output priority -100; ip6 daddr != ::1 tcp dport 80 redirect to :15001; }
  chain postrouting { type nat hook postrouting priority 100; masquerade; }
}
";

fn try_out(folder: &Folder) -> anyhow::Result<()> {
    let root = folder.root();
    fs::write(root.join("rules.nft"), RULES)?;
    bundle(folder)?;
    let mut script = String::from("export D=$1\n");
    for (what, commands) in STEPS {
        script += &format!(
            "if ! said=$( ( {commands} ) 2>&1 ); then echo \"{what} cannot be had: $said\" >&2; exit 1; fi\n"
        );
    }
    // Steps run in shells of their own, and what they make is the namespaces'.
    let mut tried = Command::new("unshare");
    tried
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"])
        .args(["--mount-proc", "sh", "-c", &script, "check"])
        .arg(root);
    let output = within(PATIENCE, &mut tried).context("namespaces cannot be made (unshare)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim().lines().collect::<Vec<_>>().join("; "));
    }
    Ok(())
}

/// A container that does nothing, as runc itself would describe one.
fn bundle(folder: &Folder) -> anyhow::Result<()> {
    let bundle = folder.file("bundle");
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin)?;
    let busybox = packages::find("busybox").context("busybox is missing")?;
    fs::copy(busybox, bin.join("busybox"))?;
    let runc = packages::find("runc").context("runc is missing")?;
    let output = within(PATIENCE, Command::new(runc).arg("spec").arg("--bundle").arg(&bundle))?;
    ensure!(output.status.success(), "runc spec: {}", String::from_utf8_lossy(&output.stderr));
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/busybox", "true"]);
    config["linux"]["cgroupsPath"] = json!(format!("/{}/container", control_groups::name(folder)));
    fs::write(path, serde_json::to_vec(&config)?)?;
    Ok(())
}

/// Go is there, or comes in, and so do the sources: where they are in Go's cache, nothing is fetched.
fn sources_come_in() -> anyhow::Result<()> {
    let go = go::find()?;
    say("fetching the sources of Kubernetes, once");
    for module in build::folders() {
        let mut download = Command::new(&go);
        download.args(["mod", "download"]).current_dir(&module);
        let output = within(PATIENCE_TO_FETCH, &mut download)
            .with_context(|| format!("go mod download in {}", module.display()))?;
        ensure!(
            output.status.success(),
            "the sources of {} cannot be fetched: {}",
            module.file_name().unwrap_or_default().display(),
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()
        );
    }
    Ok(())
}

/// A command's output, unless it takes too long.
fn within(patience: Duration, command: &mut Command) -> anyhow::Result<Output> {
    let mut log = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                bail!("no end after {patience:?}");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut stderr = Vec::new();
    log.rewind()?;
    log.read_to_end(&mut stderr)?;
    Ok(Output { status, stdout: Vec::new(), stderr })
}
