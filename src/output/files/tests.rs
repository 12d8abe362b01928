//! What a build leaves in a folder.

use super::*;
use std::fs::File;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

fn text<'a>(folder: &Path, name: &str, text: &str) -> OutFile<'a> {
    OutFile::text(folder.join(name), text.to_owned())
}

#[test]
fn new_files_appear_together() {
    let folder = tempfile::tempdir().unwrap();
    let written = write_all(vec![text(folder.path(), "a", "1"), text(folder.path(), "b", "22")]).unwrap();
    assert_eq!(names(folder.path()), ["a", "b"]);
    assert_eq!(read(folder.path(), "b"), "22");
    assert!(written.iter().all(|file| file.changed));
    assert_eq!(written[1].bytes, 2);
}

#[test]
fn a_writer_that_fails_leaves_the_old_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("a"), "old").unwrap();
    let broken = OutFile::new(path.join("b"), |out| {
        out.write_all(b"half").unwrap();
        Err(Error::internal("broken"))
    });
    let error = write_all(vec![text(path, "a", "new"), broken]).unwrap_err();
    assert_eq!(error.message, "broken");
    assert_eq!(names(path), ["a"]);
    assert_eq!(read(path, "a"), "old");
}

#[test]
fn a_rename_that_fails_brings_the_old_files_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("a"), "old").unwrap();
    let mut pending: Vec<Pending> = ["a", "new", "c", "d"]
        .into_iter()
        .map(|name| prepare(&Disk, text(path, name, "fresh")).unwrap())
        .collect();
    // A folder that appears between writing and renaming.
    fs::create_dir(path.join("c")).unwrap();
    fs::write(path.join("c/inside"), "").unwrap();
    assert!(pending.iter_mut().all(|file| file.bytes == 5));
    let error = commit(&Disk, pending).unwrap_err();
    assert_eq!(error.code, Code::Io);
    assert_eq!(names(path), ["a", "c"]);
    assert_eq!(read(path, "a"), "old");
}

#[test]
fn unchanged_files_keep_their_time_stamps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_all(vec![text(path, "a", "same"), text(path, "b", "old")]).unwrap();
    let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    for name in ["a", "b"] {
        File::options()
            .write(true)
            .open(path.join(name))
            .unwrap()
            .set_modified(past)
            .unwrap();
    }
    let written = write_all(vec![text(path, "a", "same"), text(path, "b", "new")]).unwrap();
    assert_eq!(
        written.iter().map(|file| file.changed).collect::<Vec<_>>(),
        [false, true]
    );
    let time = |name: &str| fs::metadata(path.join(name)).unwrap().modified().unwrap();
    assert_eq!(time("a"), past);
    assert_ne!(time("b"), past);
    assert_eq!(names(path), ["a", "b"]);
}

#[test]
fn files_of_many_chunks_are_compared_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    let bytes = |last: u8| {
        let mut bytes = vec![7; 2 * CHUNK];
        *bytes.last_mut().unwrap() = last;
        bytes
    };
    let put = |last: u8| {
        let write = OutFile::new(&path, move |out| {
            out.write_all(&bytes(last)).unwrap();
            Ok(())
        });
        write_all(vec![write]).unwrap()[0].changed
    };
    assert_eq!([put(1), put(1), put(2)], [true, false, true]);
}

#[test]
fn one_file_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_all(vec![text(folder.path(), "a", "1"), text(folder.path(), "./a", "2")]).unwrap_err();
    assert_eq!(error.code, Code::Usage, "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn folders_that_are_missing_or_in_the_way_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_all(vec![text(folder.path(), "missing/a", "")]).unwrap_err();
    assert!(
        error.help.as_ref().unwrap().contains("missing does not exist"),
        "{error}"
    );
    assert!(!error.message.contains(".corerope"), "{error}");
    fs::create_dir(folder.path().join("d")).unwrap();
    let error = write_all(vec![text(folder.path(), "d", "")]).unwrap_err();
    assert!(error.message.contains("is a directory"), "{error}");
    assert_eq!(names(folder.path()), ["d"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("real"), "old").unwrap();
    std::os::unix::fs::symlink("real", path.join("link")).unwrap();
    std::os::unix::fs::symlink("/dev/null", path.join("null")).unwrap();
    write_all(vec![text(path, "link", "new"), text(path, "null", "gone")]).unwrap();
    assert!(fs::symlink_metadata(path.join("link")).unwrap().is_symlink());
    assert_eq!(read(path, "real"), "new");
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    assert_eq!(names(path), ["link", "null", "real"]);
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_ordinary_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("plain"), "").unwrap();
    write_all(vec![text(path, "out", "")]).unwrap();
    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("out"), mode("plain"));
}
