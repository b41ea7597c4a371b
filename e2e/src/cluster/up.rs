//! Starts a cluster: what is missing is installed and built, then one program after the other until the node is ready.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{
    access::{self, exports},
    addons, build, certificates,
    components::{self, API_SERVER, FIRST, LAST},
    config::{self, Families},
    control_groups, down,
    folder::{Folder, Started},
    handle::Handle,
    images, oci, packages, say,
};

/// Beyond what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const AGAIN: Duration = Duration::from_millis(100);

/// Starts the cluster, or finds it running; returns the lines to evaluate.
///
/// # Errors
/// With what is missing, or the program that does not start and the end of its log.
pub fn run(folder: &Folder, images: &Path, families: Families) -> anyhow::Result<String> {
    if let Some(used) = foreign_kubeconfig(folder)? {
        say(&format!(
            "KUBECONFIG is set: the cluster of {} is used instead of one of our own",
            used.display()
        ));
        say("images: `docker build` and your own registry or loader (docs/local-cluster.md)");
        return Ok(exports(
            &used,
            &own_programs()?.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
        ));
    }
    ensure!(
        cfg!(target_os = "linux"),
        "a local cluster needs Linux; set KUBECONFIG to use another one"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "a local cluster needs root (namespaces, control groups); set KUBECONFIG to use another one"
    );
    let _lock = folder.lock()?;
    let began = Instant::now();
    packages::install(&packages::missing())?;
    let programs = build::ready()?;
    if let Some(started) = folder.started()?
        && started.init.runs()
    {
        if started.forward.is_some_and(Handle::runs) && Kubectl::new(folder, &started).ready() {
            say(&format!("cluster {} is up", folder.name()));
            load_built(folder, images)?;
            return all_exports(folder, &started.programs);
        }
        say(&format!("cluster {} is half gone: starting it afresh", folder.name()));
    }
    down::end(folder)?;
    let started = start(folder, &programs, families).inspect_err(|_| {
        say(&format!("logs are in {}", folder.file("logs").display()));
    })?;
    load_built(folder, images)?;
    say(&format!("cluster {} is up ({:.0} s)", folder.name(), began.elapsed().as_secs_f32()));
    all_exports(folder, &started.programs)
}

/// The lines for a cluster that runs.
///
/// # Errors
/// When it does not.
pub fn environment(folder: &Folder) -> anyhow::Result<String> {
    let started = running(folder)?;
    all_exports(folder, &started.programs)
}

/// What runs.
///
/// # Errors
/// When the cluster is not up.
pub fn running(folder: &Folder) -> anyhow::Result<Started> {
    folder.started()?.filter(|started| started.init.runs()).with_context(|| {
        format!("cluster {} is not up: ./justw cluster up --name {0}", folder.name())
    })
}

fn all_exports(folder: &Folder, programs: &Path) -> anyhow::Result<String> {
    let own = own_programs()?;
    let folders: Vec<_> = own.iter().map(PathBuf::as_path).chain([programs]).collect();
    Ok(exports(&folder.kubeconfig(), &folders))
}

/// The folder of our own programs, when `weft` is beside this one.
fn own_programs() -> anyhow::Result<Option<PathBuf>> {
    let executable = std::env::current_exe().context("the running executable")?;
    Ok(executable.parent().filter(|folder| folder.join("weft").is_file()).map(Path::to_path_buf))
}

/// `KUBECONFIG`, when it is set to something that is not one of our clusters.
fn foreign_kubeconfig(folder: &Folder) -> anyhow::Result<Option<PathBuf>> {
    let Some(value) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(value);
    let ours = folder.root().parent().is_some_and(|clusters| path.starts_with(clusters));
    if ours {
        return Ok(None);
    }
    ensure!(
        path.is_file(),
        "KUBECONFIG is {}, which is no file: unset it for a local cluster",
        path.display()
    );
    Ok(Some(path))
}

fn start(folder: &Folder, programs: &Path, families: Families) -> anyhow::Result<Started> {
    say(&format!("starting cluster {} in {}", folder.name(), folder.root().display()));
    let authority = certificates::make(folder)?;
    config::write(folder, &authority, families)?;
    let components = components::all(folder, programs, families)?;
    folder.write("components.json", &serde_json::to_vec_pretty(&components)?)?;
    control_groups::make(folder)?;
    let port = free_port()?;
    let server = format!("https://127.0.0.1:{port}");
    let admin = access::kubeconfig(folder, "admin", &server, &authority)?;
    folder.write("kubeconfig", admin.as_bytes())?;
    let mut started = Started {
        init: start_init(folder, programs)?,
        forward: None,
        port,
        programs: programs.to_path_buf(),
    };
    folder.record(&started)?;
    until(folder, "the node's namespaces", "init", || Ok(folder.file("running/init").exists()))?;
    FIRST.iter().try_for_each(|name| want(folder, name))?;
    until(folder, "containerd", "containerd", || Ok(ctr(folder, &["version"])?.status.success()))?;
    let node_images = node_images(folder, programs)?;
    node_images.iter().try_for_each(|path| load(folder, path))?;
    want(folder, API_SERVER)?;
    let socket = folder.file("api.sock");
    until(folder, "the API server's socket", "api-socket", || Ok(socket.exists()))?;
    started.forward = Some(start_forward(folder, port, &socket)?);
    folder.record(&started)?;
    say("  waiting for the API server");
    let kubectl = Kubectl::new(folder, &started);
    until(folder, "the API server", API_SERVER, || Ok(kubectl.ready()))?;
    LAST.iter().try_for_each(|name| want(folder, name))?;
    folder.write(
        "manifests/name-server.json",
        &serde_json::to_vec(&addons::name_server(families))?,
    )?;
    let manifest = folder.file("manifests/name-server.json").display().to_string();
    until(folder, "the name server's resources", API_SERVER, || {
        kubectl.succeeds(&["apply", "--filename", &manifest])
    })?;
    say("  waiting for the node");
    until(folder, "the node", "kubelet", || {
        kubectl.succeeds(&["wait", "node/node", "--for=condition=Ready", "--timeout=5s"])
    })?;
    say("  waiting for the name server");
    until(folder, "CoreDNS", "kubelet", || {
        let deployment =
            ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=5s"];
        kubectl.succeeds(&deployment)
    })?;
    Ok(started)
}

/// Asks until it holds; on failure the message has the end of the program's log.
fn until(
    folder: &Folder,
    what: &str,
    program: &str,
    mut ask: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let log = folder.file(&format!("logs/{program}.log"));
    loop {
        if ask()? {
            return Ok(());
        }
        let init_runs = folder.started()?.is_none_or(|started| started.init.runs());
        if !init_runs {
            bail!(
                "the node ended while waiting for {what}:\n{}",
                build::tail(&folder.file("logs/init.log"))
            );
        }
        if Instant::now() >= deadline {
            bail!(
                "{what}: not ready after {PATIENCE:?}; end of {}:\n{}",
                log.display(),
                build::tail(&log)
            );
        }
        std::thread::sleep(AGAIN);
    }
}

/// Process 1 in namespaces of its own. It is in a session of its own, so that no terminal ends it.
fn start_init(folder: &Folder, programs: &Path) -> anyhow::Result<Handle> {
    let log = fs::File::options().create(true).append(true).open(folder.file("logs/init.log"))?;
    let child = Command::new("setsid")
        .arg("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--uts", "--ipc", "--mount-proc"])
        .arg(std::env::current_exe()?)
        .arg("init")
        .arg(folder.root())
        .arg(programs)
        .env_remove("KUBECONFIG")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("unshare")?;
    let parent = Handle::of(child.id())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(init) = parent.first_child() {
            return Ok(init);
        }
        if !parent.runs() || Instant::now() >= deadline {
            bail!("the node's namespaces: {}", build::tail(&folder.file("logs/init.log")));
        }
        std::thread::sleep(AGAIN);
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn start_forward(folder: &Folder, port: u16, socket: &Path) -> anyhow::Result<Handle> {
    let log = fs::File::create(folder.file("logs/forward.log"))?;
    let child = Command::new("setsid")
        .arg("socat")
        .arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"))
        .arg(format!("UNIX-CONNECT:{}", socket.display()))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("socat")?;
    Handle::of(child.id())
}

/// Lets process 1 run a program.
///
/// # Errors
/// When the file cannot be written.
pub fn want(folder: &Folder, name: &str) -> anyhow::Result<()> {
    folder.write(&format!("wanted/{name}"), b"")
}

/// `kubectl` for one cluster.
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn new(folder: &Folder, started: &Started) -> Self {
        Self { program: started.programs.join("kubectl"), kubeconfig: folder.kubeconfig() }
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("kubectl")
    }

    fn succeeds(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        Ok(self.run(arguments)?.status.success())
    }

    fn ready(&self) -> bool {
        self.succeeds(&["get", "--raw", "/readyz", "--request-timeout=5s"]).unwrap_or(false)
    }
}

fn ctr(folder: &Folder, arguments: &[&str]) -> anyhow::Result<Output> {
    Command::new("ctr")
        .arg("--address")
        .arg(folder.containerd())
        .args(["--namespace", "k8s.io"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("ctr")
}

/// Imports an image's archive.
///
/// # Errors
/// With containerd's words.
pub fn load(folder: &Folder, archive: &Path) -> anyhow::Result<()> {
    let path = archive.display().to_string();
    let output = ctr(folder, &["images", "import", &path])?;
    if !output.status.success() {
        bail!("cannot load {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Imports what `./justw images` made, if it did.
fn load_built(folder: &Folder, archives: &Path) -> anyhow::Result<()> {
    let archives = images::archives(archives)?;
    if archives.is_empty() {
        say("  no images of ours yet: ./justw images, then ./justw cluster load");
    }
    for archive in archives {
        say(&format!("  loading {}", archive.display()));
        load(folder, &archive)?;
    }
    Ok(())
}

/// The images without which there is no pod: made of programs in the cache.
fn node_images(folder: &Folder, programs: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let target = folder.file("images");
    let image = |reference: &str, program: &str| {
        let mut layer = oci::Layer::default();
        layer.copy(&format!("/{program}"), 0o755, &programs.join(program))?;
        let settings =
            oci::Settings { entrypoint: vec![format!("/{program}")], ..Default::default() };
        oci::write(&target, reference, &settings, layer).map(|(path, _)| path)
    };
    Ok(vec![image(config::PAUSE, "pause")?, image(addons::IMAGE, "coredns")?])
}
