use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A folder that can be scanned now or when everything has settled.
struct Test {
    folder: Folder,
    dir: tempfile::TempDir,
}

impl Default for Test {
    fn default() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), FirstSeen::default());
        let mut test = Self { folder, dir };
        assert_eq!(test.scan(), Vec::<String>::new());
        test
    }
}

impl Test {
    fn write(&self, file: &str, text: &str) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.dir.path().join(file)).unwrap();
    }

    /// The events of a scan at a time when all files have settled, as text.
    fn scan(&mut self) -> Vec<String> {
        let scan = self.folder.scan(SystemTime::now() + Duration::from_secs(5));
        assert_eq!(scan.again, None);
        describe(scan.batch)
    }

    fn problems(&self) -> Vec<String> {
        let root = self.dir.path();
        let describe = |p: &Problem| {
            let file = p.file.strip_prefix(root).unwrap().display().to_string();
            format!("{file}: {}", p.message)
        };
        self.folder.report.problems.iter().map(describe).collect()
    }
}

fn describe(batch: Option<Batch>) -> Vec<String> {
    batch
        .into_iter()
        .flat_map(|batch| batch.events)
        .map(|event| match event {
            Event::Apply(object) => format!("apply {}", ObjectKey::of(&object)),
            Event::Delete(key) => format!("delete {key}"),
            Event::Invalid { key, problems, .. } => format!("invalid {key} {}", problems[0].path),
        })
        .collect()
}

fn route(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\n\
         spec:\n  hosts: [{host}]\n  http:\n  - route:\n    - destination: {{host: {host}}}\n---\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n\
    spec: {ports: [{port: 80}]}\n---\n";

#[test]
fn files_of_all_kinds_and_depths_become_resources() {
    let mut test = Test::default();
    test.write("a.yaml", &format!("{SERVICE}{}", route("r", "a")));
    test.write("b/c.yml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    test.write(
        "d.json",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}"#,
    );
    test.write("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n");
    for ignored in ["notes.txt", ".hidden.yaml", "a.yaml~", ".git/x.yaml", "a.yaml.tmp"] {
        test.write(ignored, "not: [yaml");
    }
    let applied = test.scan();
    assert_eq!(
        applied,
        ["apply Service shop/a", "apply VirtualService default/r", "apply Pod default/p"]
    );
    assert_eq!((test.folder.report.files, test.folder.report.objects), (4, 3));
    assert_eq!(test.problems(), Vec::<String>::new());
    assert_eq!(test.scan(), Vec::<String>::new());
}

#[test]
fn a_change_touches_what_changed_only() {
    let mut test = Test::default();
    test.write("a.yaml", &(route("one", "a") + &route("two", "b")));
    assert_eq!(test.scan().len(), 2);
    test.write("a.yaml", &(route("one", "a") + &route("two", "c") + &route("three", "d")));
    assert_eq!(
        test.scan(),
        ["apply VirtualService default/two", "apply VirtualService default/three"]
    );
    test.write("a.yaml", &route("two", "c"));
    assert_eq!(
        test.scan(),
        ["delete VirtualService default/one", "delete VirtualService default/three"]
    );
    test.remove("a.yaml");
    assert_eq!(test.scan(), ["delete VirtualService default/two"]);
}

#[test]
fn a_broken_file_is_reported_and_its_last_good_content_stays() {
    let good = route("r", "a") + SERVICE;
    for (name, broken, expected) in [
        ("not YAML", "{{{ nonsense".to_owned(), "not valid YAML"),
        (
            "half a file",
            good[..good.find("destination").unwrap() + 14].to_owned(),
            "not valid YAML",
        ),
        (
            "unknown field",
            good.replace("hosts:", "hots:"),
            "VirtualService default/r: spec.hots: unknown field",
        ),
        ("wrong type", good.replace("hosts: [a]", "hosts: 5"), "spec.hosts"),
        ("a list", "- a\n- b\n".to_owned(), "expected an object"),
        ("no kind", "a: b\n".to_owned(), "without apiVersion and kind"),
        ("a Service that is none", good.replace("port: 80", "port: eighty"), "Service shop/a"),
    ] {
        let mut test = Test::default();
        test.write("a.yaml", &good);
        assert_eq!(test.scan().len(), 2);
        test.write("a.yaml", &(route("new", "fresh") + &broken));
        let events = test.scan();
        assert!(events.iter().all(|event| event.starts_with("invalid")), "{name}: {events:?}");
        let problems = test.problems();
        assert!(problems[0].contains(expected), "{name}: {problems:?}");
        assert_eq!(test.scan(), Vec::<String>::new(), "{name}");
        test.write("a.yaml", &good);
        let repaired = test.scan();
        assert!(!repaired.iter().any(|event| event.starts_with("delete")), "{name}: {repaired:?}");
        assert_eq!(repaired.len(), events.len(), "{name}");
        assert_eq!(test.problems(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_file_that_is_not_utf8_or_cannot_be_read_keeps_its_last_good_content() {
    let mut test = Test::default();
    test.write("a.yaml", SERVICE);
    assert_eq!(test.scan().len(), 1);
    fs::write(test.dir.path().join("a.yaml"), [b'a', 0xff]).unwrap();
    assert_eq!(test.scan(), Vec::<String>::new());
    assert_eq!(test.problems(), ["a.yaml: not text: byte 1 is not UTF-8"]);
    let path = test.dir.path().join("a.yaml");
    fs::set_permissions(&path, Permissions::from_mode(0o0)).unwrap();
    // Root reads it all the same.
    if fs::read(&path).is_err() {
        assert_eq!(test.scan(), Vec::<String>::new());
        assert!(test.problems()[0].contains("cannot be read"));
    }
}

#[test]
fn of_a_file_that_is_broken_at_first_sight_the_good_documents_count() {
    let mut test = Test::default();
    test.write("a.yaml", &(SERVICE.to_owned() + &route("r", "a").replace("hosts:", "hots:")));
    assert_eq!(test.scan(), ["apply Service shop/a", "invalid VirtualService default/r spec.hots"]);
    test.write("a.yaml", SERVICE);
    assert_eq!(test.scan(), ["delete VirtualService default/r"]);
}

#[test]
fn what_is_being_written_is_not_believed_before_it_has_settled() {
    let mut test = Test::default();
    test.write("a.yaml", &(route("one", "a") + &route("two", "b")));
    assert_eq!(test.scan().len(), 2);
    for half in ["", "{{{", &route("one", "a")] {
        test.write("a.yaml", half);
        let scan = test.folder.scan(SystemTime::now());
        assert_eq!(describe(scan.batch), Vec::<String>::new());
        assert!(scan.again.is_some());
    }
    test.write("a.yaml", &(route("one", "a") + &route("two", "c")));
    // What is no worse than before is believed at once, and looked at again.
    let scan = test.folder.scan(SystemTime::now());
    assert_eq!(describe(scan.batch), ["apply VirtualService default/two"]);
    assert!(scan.again.is_some());
    assert_eq!(test.scan(), Vec::<String>::new());
    test.write("a.yaml", "");
    assert_eq!(test.scan().len(), 2);
}

#[test]
fn of_two_files_with_one_resource_the_first_by_path_wins() {
    let mut test = Test::default();
    test.write("b.yaml", &route("r", "b"));
    assert_eq!(test.scan(), ["apply VirtualService default/r"]);
    test.write("c.yaml", &route("r", "c"));
    assert_eq!(test.scan(), Vec::<String>::new());
    let text = "c.yaml: VirtualService default/r: ignored, it is already defined in b.yaml";
    assert_eq!(test.problems(), [text]);
    test.write("a.yaml", &route("r", "a"));
    assert_eq!(test.scan(), ["apply VirtualService default/r"]);
    test.remove("a.yaml");
    test.remove("b.yaml");
    assert_eq!(test.scan(), ["apply VirtualService default/r"]);
    assert_eq!(test.problems(), Vec::<String>::new());
}

#[test]
fn renaming_a_file_or_replacing_it_by_a_rename_changes_nothing() {
    let mut test = Test::default();
    test.write("a.yaml", &route("r", "a"));
    test.scan();
    fs::rename(test.dir.path().join("a.yaml"), test.dir.path().join("b.yaml")).unwrap();
    assert_eq!(test.scan(), Vec::<String>::new());
    test.write(".b.yaml.swp", &route("r", "a"));
    fs::rename(test.dir.path().join(".b.yaml.swp"), test.dir.path().join("b.yaml")).unwrap();
    assert_eq!(test.scan(), Vec::<String>::new());
    test.write("draft", &route("r", "c"));
    fs::rename(test.dir.path().join("draft"), test.dir.path().join("b.yaml")).unwrap();
    assert_eq!(test.scan(), ["apply VirtualService default/r"]);
}

#[test]
fn a_folder_that_cannot_be_read_keeps_what_it_had() {
    let mut test = Test::default();
    test.write("a.yaml", &route("r", "a"));
    test.scan();
    let moved = test.dir.path().with_extension("moved");
    fs::rename(test.dir.path(), &moved).unwrap();
    assert_eq!(test.scan(), Vec::<String>::new());
    assert_eq!(test.folder.report.problems.len(), 1);
    fs::rename(&moved, test.dir.path()).unwrap();
    assert_eq!(test.scan(), Vec::<String>::new());
    assert_eq!(test.problems(), Vec::<String>::new());
}

#[test]
fn links_are_followed_but_not_in_circles() {
    let mut test = Test::default();
    // As Kubernetes mounts a ConfigMap.
    test.write("..1/a.yaml", &route("r", "a"));
    std::os::unix::fs::symlink("..1", test.dir.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", test.dir.path().join("a.yaml")).unwrap();
    std::os::unix::fs::symlink(".", test.dir.path().join("circle")).unwrap();
    assert_eq!(test.scan(), ["apply VirtualService default/r"]);
}

#[test]
fn ages_follow_the_order_of_first_sight_and_survive_rewrites() {
    let mut test = Test::default();
    let created = |batch: Option<Batch>| -> Vec<(String, i64)> {
        let events = batch.unwrap().events.into_iter().filter_map(|event| match event {
            Event::Apply(object) => {
                let time = object.metadata().creation_timestamp.as_ref().unwrap().0.as_second();
                Some((ObjectKey::of(&object).name, time))
            }
            _ => None,
        });
        events.collect()
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let old = route("old", "o")
        .replace("name: old", "name: old, creationTimestamp: '2020-01-01T00:00:00Z'");
    test.write("a.yaml", &(route("z", "a") + &route("b", "b") + &old));
    assert_eq!(
        created(test.folder.scan(now).batch),
        [("z".into(), 4_000_000_000), ("b".into(), 4_000_000_001), ("old".into(), 1_577_836_800)]
    );
    test.write("a.yaml", &(route("b", "c") + &route("z", "d") + &old));
    assert_eq!(
        created(test.folder.scan(now + Duration::from_secs(60)).batch),
        [("b".into(), 4_000_000_001), ("z".into(), 4_000_000_000)]
    );
}

#[test]
fn kinds_of_the_mesh_that_have_no_effect_are_reported() {
    let mut test = Test::default();
    test.write(
        "a.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualServices\nmetadata: {name: a}\n",
    );
    assert_eq!(test.scan(), Vec::<String>::new());
    let text = "a.yaml: networking.istio.io/v1 VirtualServices has no effect: Weft does not know this kind";
    assert_eq!(test.problems(), [text]);
}
