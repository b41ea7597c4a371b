//! The rules in a kernel: what connections do under them.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
};

use rustix::thread::{set_thread_gid, set_thread_uid};

use super::{
    init::{self, InitError},
    original, rules,
    settings::InitArgs,
    testing::{POD, in_namespace, skip},
};

const PROXY: u32 = 1337;

fn run(flags: &[&str]) -> Result<String, InitError> {
    let mut output = Vec::new();
    init::run(&InitArgs::parse(flags).unwrap(), &mut output)?;
    Ok(String::from_utf8(output).unwrap())
}

/// Listens where captured connections come in, in both families.
struct Captured(Vec<TcpListener>);

impl Captured {
    fn new(port: u16) -> Self {
        let listen = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            let address = SocketAddr::new(address, port);
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(true).unwrap();
            }
            socket.bind(&address.into()).unwrap();
            socket.listen(16).unwrap();
            TcpListener::from(socket)
        };
        Self(vec![listen("0.0.0.0"), listen("::")])
    }

    /// Where the connection that waits wanted to go.
    fn original(&self, to: SocketAddr) -> SocketAddr {
        let (stream, _) = self.0[usize::from(to.is_ipv6())].accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        original::destination(&tokio::net::TcpStream::from_std(stream).unwrap()).unwrap()
    }
}

fn connect(to: SocketAddr, from: Option<&str>) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(to);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if let Some(from) = from {
        let from: IpAddr = from.parse().unwrap();
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Connects as the proxy's user, on a thread that ends with it.
fn as_proxy(to: SocketAddr, from: Option<&'static str>) -> io::Result<TcpStream> {
    let connecting = std::thread::spawn(move || {
        set_thread_gid(rustix::process::Gid::from_raw(PROXY)).unwrap();
        set_thread_uid(rustix::process::Uid::from_raw(PROXY)).unwrap();
        connect(to, from)
    });
    connecting.join().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn connections_go_where_the_rules_say_and_the_kernel_remembers_where_they_wanted_to_go() {
    in_namespace(|| {
        run(&["-x", "10.1.2.0/25", "-o", "25"]).unwrap();
        let (outbound, inbound) = (Captured::new(15001), Captured::new(15006));
        for elsewhere in ["10.96.0.1", "2001:db8::1"] {
            let to = at(elsewhere, 80);
            let _open = connect(to, None).unwrap();
            assert_eq!(outbound.original(to), to, "the application's are captured");
        }
        for (pod, marker) in POD.into_iter().zip(["127.0.0.6", "::6"]) {
            let application = TcpListener::bind(at(pod, 8080)).unwrap();
            let to = application.local_addr().unwrap();
            let _open = as_proxy(to, None).unwrap();
            assert_eq!(inbound.original(to), to, "the proxy's to its own pod come back in");
            let reached = |open: io::Result<TcpStream>| {
                let local = open.unwrap().local_addr().unwrap();
                assert_eq!(application.accept().unwrap().1, local);
                local.ip()
            };
            let marker_ip: IpAddr = marker.parse().unwrap();
            assert_eq!(
                reached(as_proxy(to, Some(marker))),
                marker_ip,
                "inbound to the application"
            );
            reached(connect(to, None));
        }
        for loopback in ["127.0.0.1", "::1"] {
            let application = TcpListener::bind(at(loopback, 0)).unwrap();
            let to = application.local_addr().unwrap();
            let local = as_proxy(to, None).unwrap().local_addr().unwrap();
            assert_eq!(application.accept().unwrap().1, local, "administration is not captured");
        }
    });
}

#[test]
fn what_is_missing_in_the_kernel_is_named_and_a_second_run_replaces_the_first() {
    in_namespace(|| {
        let error = run(&["--check"]).unwrap_err().to_string();
        assert!(error.contains("table inet weft has no nat chain output"), "{error}");
        assert!(error.contains("interface lo has no address ::6"), "{error}");
        run(&["-o", "25"]).unwrap();
        run(&["-o", "25", "--check"]).unwrap();
        let error = run(&["--check"]).unwrap_err().to_string();
        assert!(error.contains("chain output: 1 rules too many"), "{error}");
        assert!(error.contains("chain output: rule 1 is missing: oifname"), "{error}");
        run(&[]).unwrap();
        run(&["--check"]).unwrap();
    });
}

#[test]
fn many_rules_are_one_transaction_too() {
    in_namespace(|| {
        let ports: Vec<String> = (1..=1000).map(|port: u16| port.to_string()).collect();
        let flags = ["-o", &ports.join(",")];
        run(&flags).unwrap();
        run(&[&flags[..], &["--check"]].concat()).unwrap();
    });
}

#[test]
fn rules_are_printed_as_nft_shows_them() {
    in_namespace(|| {
        let flags = [
            "-x",
            "10.0.0.0/9,10.1.2.3,fd00::/8",
            "-o",
            "25",
            "-q",
            "3306",
            "-i",
            "10.0.0.0/8,fd00::/9",
            "-b",
            "80,8080",
            "-c",
            "tun0,cni+",
            "-k",
            "vm0",
        ];
        for flags in [&[][..], &flags] {
            run(flags).unwrap();
            let printed = run(&[flags, &["--print"]].concat()).unwrap();
            let shown = Command::new("nft").args(["list", "table", "inet", rules::TABLE]).output();
            match shown {
                Ok(shown) => assert_eq!(printed, String::from_utf8(shown.stdout).unwrap()),
                Err(_) => skip("no command nft"),
            }
        }
    });
}

#[test]
fn capture_of_names_is_refused() {
    assert!(matches!(run(&["--redirect-dns"]), Err(InitError::Dns)));
}
