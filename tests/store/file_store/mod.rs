//! A store in a file: whole records, exclusive locks, and errors that name the remedy.

mod other_processes;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{id, intent, record, record_of_length, skipped};
use tokio_test::{assert_pending, assert_ready, task};
use tower_refresh::store::{FileStore, StoreError, StoreLock as _, StoredTokens, TokenStore as _};

use crate::folder::Folder;

const AT_ONCE: Duration = Duration::ZERO;

/// Longer than any step takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

#[cfg(feature = "testing")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn file_store_keeps_the_laws_of_stores() {
    let folder = Folder::new();
    let open = async |name: &str| FileStore::new(folder.path(name));
    tower_refresh::testing::store_laws(open).await;
}

#[cfg(all(feature = "testing", feature = "encrypted-store"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn encrypted_file_store_keeps_the_laws() {
    use tower_refresh::store::{EncryptedStore, EncryptionKey};

    let folder = Folder::new();
    let open = async |name: &str| {
        EncryptedStore::new(FileStore::new(folder.path(name)), EncryptionKey::new("k", [7; 32]))
    };
    tower_refresh::testing::store_laws(open).await;
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lock = runtime.block_on(store.lock(AT_ONCE)).unwrap();

    let record = record(1);
    for error in [
        assert_ready!(task::spawn(store.lock(AT_ONCE)).poll()).unwrap_err(),
        assert_ready!(task::spawn(store.load()).poll()).unwrap_err(),
        assert_ready!(task::spawn(store.save(&record, None)).poll()).unwrap_err(),
        assert_ready!(task::spawn(lock.is_held()).poll()).unwrap_err(),
    ] {
        assert!(error.is_misconfigured() && error.to_string().contains("runtime"), "{error}");
    }
    // Releasing it needs no runtime, not even the one that acquired it.
    drop(runtime);
    drop(lock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    drop(runtime.block_on(store.lock(AT_ONCE)).unwrap());
}

// ===== saves =====

#[tokio::test]
async fn save_succeeds_only_over_the_record_that_it_replaces() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    assert!(store.load().await.unwrap().is_none());
    assert!(store.save(&record(2), Some(id(1))).await.unwrap_err().is_conflict());

    store.save(&record(1), None).await.unwrap();
    store.save(&record(2), Some(id(1))).await.unwrap();
    // The save has succeeded before.
    store.save(&record(2), Some(id(1))).await.unwrap();
    for replaces in [None, Some(id(1)), Some(id(3))] {
        assert!(store.save(&record(3), replaces).await.unwrap_err().is_conflict());
    }
    let another = FileStore::new(folder.path("tokens.json"));
    assert_eq!(another.load().await.unwrap().unwrap().write_id(), id(2));
}

#[tokio::test]
async fn one_of_many_that_replace_the_same_counts() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    FileStore::new(&path).save(&record(1), None).await.unwrap();
    let saves: Vec<_> = (2..10)
        .map(|n| {
            let store = FileStore::new(&path);
            tokio::spawn(async move { store.save(&record(n), Some(id(1))).await })
        })
        .collect();
    let mut counted = 0;
    for save in saves {
        match save.await.unwrap() {
            Ok(()) => counted += 1,
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
    assert_eq!(counted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_never_sees_a_part_of_a_record() {
    const SAVES: u64 = 500;

    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    store.save(&record(1), None).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, is_over) = (FileStore::new(&path), Arc::clone(&is_over));
        async move {
            let (mut last, mut loads) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                let seen = store.load().await.unwrap().unwrap().revision();
                assert!(seen >= last);
                last = seen;
                loads += 1;
            }
            loads
        }
    });
    for n in 2..=SAVES {
        // Long and short records in turn, through the reserved file and without it.
        let record = if n % 3 == 0 {
            intent(n)
        } else {
            record_of_length(n, usize::try_from(n % 7).unwrap() * 5000)
        };
        store.save(&record, Some(id(n - 1))).await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 10);
    assert_eq!(store.load().await.unwrap().unwrap().revision(), SAVES);
}

#[tokio::test]
async fn unreadable_record_is_an_error_and_is_left_unchanged() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    let told = async |content: &[u8], why: &str| {
        fs::write(&path, content).unwrap();
        for (what, error) in [
            ("load", store.load().await.unwrap_err()),
            ("save", store.save(&record(2), Some(id(1))).await.unwrap_err()),
            ("first save", store.save(&record(2), None).await.unwrap_err()),
        ] {
            let shown = format!("{error} {error:?}");
            assert!(error.is_unreadable(), "{what}: {shown}");
            assert!(shown.contains(path.to_str().unwrap()) && shown.contains(why), "{shown}");
            assert!(shown.contains("moved away") && !shown.contains("sesame"), "{shown}");
        }
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(folder.names(), ["tokens.json", "tokens.json.save-lock"]);
    };
    told(b"", "it is empty").await;
    told(b" \n", "it is empty").await;
    told(b"\0\0\0\0", "it is not a record").await;
    told(b"sesame", "it is not a record").await;
    told(b"\xff\xfe", "it is not a record").await;
    told(br#"{"access_token": "sesame"}"#, "it is not a record").await;
    told(br#"{"version": 1, "access_token": "sesame"}"#, "is not a whole one").await;
    told(br#"{"version": 2, "secret": "sesame"}"#, "later version").await;
    told(&vec![b' '; 1024 * 1024 + 1], "longer than").await;
}

#[tokio::test]
async fn torn_record_is_an_error_and_is_left_unchanged() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    let whole = intent(1).to_json().unwrap();
    // Without its final newline the record is whole.
    for length in 0..whole.len() - 1 {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(store.load().await.unwrap_err().is_unreadable(), "{length}");
        let error = store.save(&record(2), Some(id(1))).await.unwrap_err();
        assert!(error.is_unreadable(), "{length}: {error}");
        assert_eq!(fs::read(&path).unwrap(), whole[..length]);
    }
    fs::write(&path, &whole).unwrap();
    store.save(&record(2), Some(id(1))).await.unwrap();
}

#[tokio::test]
async fn a_record_that_could_not_be_read_again_is_not_saved() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let error = store.save(&record_of_length(1, 1024 * 1024), None).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("1048576"), "{error}");
    assert!(folder.names().is_empty());
}

// ===== reserved room =====

#[tokio::test]
async fn room_is_reserved_by_an_intent_and_used_by_what_follows() {
    let folder = Folder::new();
    let [path, reserved] = ["tokens.json", "tokens.json.reserved"].map(|name| folder.path(name));
    let store = FileStore::new(&path);
    store.save(&record(1), None).await.unwrap();
    assert!(!reserved.exists());

    store.save(&intent(2), Some(id(1))).await.unwrap();
    let room = fs::metadata(&reserved).unwrap();
    assert!(room.len() >= 384 * 1024 && room.blocks() * 512 >= 384 * 1024, "{room:?}");
    assert_eq!(room.mode() & 0o777, 0o600);
    assert!(fs::read(&reserved).unwrap().iter().all(|byte| *byte == 0));

    // The same file, now under the other name, and of the exact length.
    let successor = record_of_length(3, 100_000);
    store.save(&successor, Some(id(2))).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), room.ino());
    assert_eq!(fs::read(&path).unwrap(), *successor.to_json().unwrap());
    assert!(!reserved.exists());
}

#[tokio::test]
async fn a_large_record_is_given_twice_its_size() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let json = String::from_utf8(intent(1).to_json().unwrap().to_vec()).unwrap();
    let large = json.replace("sesame-1", &"s".repeat(300_000));
    store.save(&StoredTokens::from_json(large.as_bytes()).unwrap(), None).await.unwrap();
    assert!(fs::metadata(folder.path("tokens.json.reserved")).unwrap().len() >= 600_000);
}

#[tokio::test]
async fn what_a_killed_process_left_behind_is_cleared_away() {
    let folder = Folder::new();
    let [path, new, reserved] =
        ["tokens.json", "tokens.json.new", "tokens.json.reserved"].map(|name| folder.path(name));
    let store = FileStore::new(&path);
    store.save(&intent(1), None).await.unwrap();
    let leave = |path: &Path| {
        fs::write(path, "a token in a record that was not fini").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };

    // The next attempt keeps no part of an earlier record in the reserved room.
    leave(&new);
    leave(&reserved);
    store.save(&intent(2), Some(id(1))).await.unwrap();
    assert!(!new.exists());
    let room = fs::read(&reserved).unwrap();
    assert!(room.len() >= 384 * 1024 && room.iter().all(|byte| *byte == 0));

    // Existing room is used again.
    let room = fs::metadata(&reserved).unwrap().ino();
    store.save(&intent(3), Some(id(2))).await.unwrap();
    assert_eq!(fs::metadata(&reserved).unwrap().ino(), room);

    leave(&new);
    leave(&reserved);
    store.save(&record(4), Some(id(3))).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), *record(4).to_json().unwrap());
    assert_eq!(folder.names(), ["tokens.json", "tokens.json.save-lock"]);
}

#[tokio::test]
async fn reserved_file_of_another_user_is_not_written_to() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can give files away");
    }
    let folder = Folder::new();
    let [path, reserved] = ["tokens.json", "tokens.json.reserved"].map(|name| folder.path(name));
    fs::write(&reserved, "").unwrap();
    fs::set_permissions(&reserved, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&reserved, Some(65534), None).unwrap();
    FileStore::new(&path).save(&record(1), None).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
}

#[tokio::test]
async fn a_reserved_file_that_others_can_read_is_not_written_to() {
    let folder = Folder::new();
    let [path, reserved] = ["tokens.json", "tokens.json.reserved"].map(|name| folder.path(name));
    let store = FileStore::new(&path);
    for (n, record) in [(1, record(1)), (2, intent(2))] {
        fs::write(&reserved, "").unwrap();
        fs::set_permissions(&reserved, fs::Permissions::from_mode(0o644)).unwrap();
        let mut planted = fs::File::open(&reserved).unwrap();
        store.save(&record, (n > 1).then(|| id(n - 1))).await.unwrap();
        let mut seen = Vec::new();
        std::io::Read::read_to_end(&mut planted, &mut seen).unwrap();
        assert!(seen.is_empty());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&reserved).unwrap().mode() & 0o777, 0o600);
}

// ===== permissions =====

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// S16
#[tokio::test]
async fn record_that_others_can_write_is_refused_with_the_remedy() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    store.save(&record(1), None).await.unwrap();
    for (others, remedy) in
        [(0o666, "chmod go-w"), (0o602, "chmod go-w"), (0o660, "share_with_group")]
    {
        mode(&path, others);
        for error in [
            store.load().await.map(drop).unwrap_err(),
            store.save(&record(2), Some(id(1))).await.unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(error.is_misconfigured() && message.contains(remedy), "{message}");
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(!message.contains("sesame"), "{message}");
        }
    }
    for own in [0o600, 0o644, 0o400] {
        mode(&path, own);
        assert!(store.load().await.unwrap().is_some());
    }
}

/// S16
#[tokio::test]
async fn record_of_another_user_is_refused_with_the_remedy() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    store.save(&record(1), None).await.unwrap();
    if chown(&path, Some(65534), None).is_err() {
        return skipped("only root can give files away");
    }
    for others in [0o600, 0o644, 0o666] {
        mode(&path, others);
        for error in [
            store.load().await.map(drop).unwrap_err(),
            store.save(&record(2), Some(id(1))).await.unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(error.is_misconfigured(), "{message}");
            for words in ["belongs to user 65534", "sudo -u '#65534'", "chown 0 "] {
                assert!(message.contains(words), "{message}");
            }
        }
    }
}

/// S16
#[tokio::test]
async fn lock_file_of_another_user_is_refused_with_the_remedy() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let plant = |suffix: &str| {
        let path = folder.path(&format!("tokens.json.{suffix}"));
        fs::write(&path, "").unwrap();
        mode(&path, 0o666);
        chown(&path, Some(65534), None).is_ok()
    };
    if !plant("lock") {
        return skipped("only root can give files away");
    }
    let error = store.lock(AT_ONCE).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("chown"), "{error}");
    assert!(plant("save-lock"));
    let error = store.save(&record(1), None).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("chown"), "{error}");
}

/// S16
#[tokio::test]
async fn members_of_the_folders_group_share_a_record_if_allowed() {
    let folder = Folder::new();
    let inner = folder.path("inner");
    fs::create_dir(&inner).unwrap();
    if chown(&inner, None, Some(65534)).is_err() {
        return skipped("only root can choose any group");
    }
    let path = inner.join("tokens.json");
    mode(&inner, 0o770);
    let store = FileStore::new(&path).share_with_group();
    let lock = store.lock(AT_ONCE).await.unwrap();
    store.save(&intent(1), None).await.unwrap();
    for name in ["", ".lock", ".save-lock", ".reserved"] {
        let metadata = fs::metadata(inner.join(format!("tokens.json{name}"))).unwrap();
        assert_eq!((metadata.gid(), metadata.mode() & 0o777), (65534, 0o660), "{name}");
    }
    drop(lock);
    // Another member has saved.
    for name in ["", ".lock", ".save-lock", ".reserved"] {
        chown(inner.join(format!("tokens.json{name}")), Some(65533), None).unwrap();
    }
    drop(store.lock(AT_ONCE).await.unwrap());
    store.save(&record(2), Some(id(1))).await.unwrap();
    assert_eq!(store.load().await.unwrap().unwrap().write_id(), id(2));

    // A user who is not a member.
    chown(&path, Some(65533), Some(65533)).unwrap();
    let error = store.load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("chgrp 65534"), "{error}");
    chown(&path, Some(0), Some(65534)).unwrap();
    mode(&path, 0o666);
    let error = store.load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("chmod o-w"), "{error}");
    mode(&path, 0o660);
    mode(&inner, 0o777);
    let error = FileStore::new(&path).share_with_group().load().await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("chmod o-w"), "{error}");
}

/// S16: at the first start of several members, one creates the lock file and then shares it.
#[tokio::test]
async fn lock_file_that_a_member_is_about_to_share_is_waited_for() {
    let folder = Folder::new();
    let [path, lock] = ["tokens.json", "tokens.json.lock"].map(|name| folder.path(name));
    let store = FileStore::new(&path).share_with_group();
    fs::write(&lock, "").unwrap();
    if chown(&lock, Some(65533), Some(65533)).is_err() {
        return skipped("only root can give files away");
    }
    let error = store.lock(AT_ONCE).await.unwrap_err();
    assert!(error.is_held(), "{error}");
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(&lock).unwrap().set_times(times).unwrap();
    let error = store.lock(AT_ONCE).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("chgrp"), "{error}");
}

/// S16: another member of the group could otherwise have any file of this user shared with the group.
#[tokio::test]
async fn file_with_another_name_is_not_shared_with_the_group() {
    let folder = Folder::new();
    let [path, victim] = ["tokens.json", "victim"].map(|name| folder.path(name));
    let store = FileStore::new(&path).share_with_group();
    for suffix in [".lock", ".save-lock"] {
        fs::write(&victim, "not yours").unwrap();
        mode(&victim, 0o600);
        let planted = folder.path(&format!("tokens.json{suffix}"));
        drop(fs::remove_file(&planted));
        fs::hard_link(&victim, &planted).unwrap();
        let locked = store.lock(AT_ONCE).await.map(drop);
        let error = locked.and(store.save(&record(1), None).await).unwrap_err();
        assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o600, "{suffix}");
        assert!(error.is_misconfigured() && error.to_string().contains("remove it"), "{error}");
        fs::remove_file(&planted).unwrap();
        fs::remove_file(&victim).unwrap();
    }
}

/// S9
#[tokio::test]
async fn place_is_the_files_name_and_no_two_names_share_one() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let folder = Folder::new();
    let place = |name: &[u8]| FileStore::new(folder.path("").join(OsStr::from_bytes(name))).place();
    assert_eq!(place("tökens.json".as_bytes()), "tökens.json");
    assert_eq!(place(b"t\xf6kens.json"), "t\\xf6kens.json");
    assert_ne!(place(b"t\xf6kens.json"), place(b"t\xe4kens.json"));
}

// ===== the lock =====

#[tokio::test(start_paused = true)]
async fn two_stores_of_one_process_exclude_each_other() {
    let folder = Folder::new();
    let [one, other] = [(); 2].map(|()| FileStore::new(folder.path("tokens.json")));
    let lock = one.lock(AT_ONCE).await.unwrap();
    assert!(lock.is_held().await.unwrap());
    let error = other.lock(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.is_held() && error.to_string().contains("tokens.json"), "{error}");
    assert!(one.clone().lock(AT_ONCE).await.unwrap_err().is_held());
    // The record can be read without the lock.
    other.save(&record(1), None).await.unwrap();
    assert!(other.load().await.unwrap().is_some());

    lock.release().await;
    drop(other.lock(AT_ONCE).await.unwrap());
    drop(one.lock(AT_ONCE).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn waiter_gets_the_lock_when_it_is_released() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let lock = store.lock(AT_ONCE).await.unwrap();
    let waiter = tokio::spawn({
        let store = store.clone();
        async move { store.lock(LONG).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiter.is_finished());
    drop(lock);
    assert!(waiter.await.unwrap().unwrap().is_held().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_leaves_nothing_held() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let lock = store.lock(AT_ONCE).await.unwrap();
    let waiter = store.lock(LONG);
    assert!(tokio::time::timeout(Duration::from_millis(20), waiter).await.is_err());
    // During an attempt, too.
    let mut waiter = task::spawn(store.lock(LONG));
    assert_pending!(waiter.poll());
    drop(waiter);
    drop(lock);
    // Or right after the lock was acquired.
    let mut waiter = task::spawn(store.lock(LONG));
    let _ = waiter.poll();
    drop(waiter);
    store.lock(LONG).await.unwrap();
}

#[tokio::test]
async fn a_lock_whose_file_is_removed_or_replaced_is_lost() {
    let folder = Folder::new();
    let [path, lock_file] = ["tokens.json", "tokens.json.lock"].map(|name| folder.path(name));
    let store = FileStore::new(&path);
    let first = store.lock(AT_ONCE).await.unwrap();
    fs::remove_file(&lock_file).unwrap();
    assert!(!first.is_held().await.unwrap());
    let second = store.lock(AT_ONCE).await.unwrap();
    assert!(second.is_held().await.unwrap() && !first.is_held().await.unwrap());
    drop(first);
    assert!(store.lock(AT_ONCE).await.unwrap_err().is_held());

    fs::write(folder.path("another"), "").unwrap();
    fs::rename(folder.path("another"), &lock_file).unwrap();
    assert!(!second.is_held().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_save_behind_one_that_never_ends_gives_up() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let stuck = fs::File::create(folder.path("tokens.json.save-lock")).unwrap();
    stuck.try_lock().unwrap();
    let error = store.save(&record(1), None).await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("is stopped"), "{error}");
    // Closing is not enough, since a child process of another test may be starting, and have it open.
    stuck.unlock().unwrap();
    store.save(&record(1), None).await.unwrap();
}

#[test]
fn hanging_disk_is_an_error_and_is_not_waited_for() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (release, hung) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        let folder = Folder::new();
        let store = FileStore::new(folder.path("tokens.json"));
        let hangs = tokio::task::spawn_blocking(move || hung.recv());
        let record = record(1);
        let mut load = task::spawn(store.load());
        let mut save = task::spawn(store.save(&record, None));
        assert_pending!(load.poll());
        assert_pending!(save.poll());
        tokio::time::advance(Duration::from_secs(31)).await;
        for error in [load.await.map(drop).unwrap_err(), save.await.unwrap_err()] {
            assert!(error.is_unavailable() && error.to_string().contains("hangs"), "{error}");
        }
        drop(release);
        assert!(hangs.await.unwrap().is_err());
        // The save continues once it can.
        assert!(store.load().await.unwrap().is_some());
    });
}

#[tokio::test]
async fn a_save_that_was_begun_goes_on_when_it_is_dropped() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let record = record(1);
    let mut save = task::spawn(store.save(&record, None));
    let _ = save.poll();
    drop(save);
    let saved = async { while store.load().await.unwrap().is_none() {} };
    tokio::time::timeout(LONG, saved).await.unwrap();
}

#[tokio::test]
async fn programs_that_are_started_meanwhile_do_not_inherit_the_lock() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let _lock = store.lock(AT_ONCE).await.unwrap();
    let Ok(open) = Command::new("ls").args(["-l", "/proc/self/fd"]).output() else {
        return skipped("`ls` does not work here");
    };
    assert!(!String::from_utf8(open.stdout).unwrap().contains("tokens.json"));
}

// ===== paths =====

#[tokio::test]
async fn all_names_of_one_file_are_one_store() {
    let folder = Folder::new();
    let real = folder.path("real");
    fs::create_dir(&real).unwrap();
    symlink("real", folder.path("linked")).unwrap();
    FileStore::new(real.join("tokens.json")).save(&record(1), None).await.unwrap();
    symlink("real/tokens.json", folder.path("a.json")).unwrap();
    symlink("a.json", folder.path("b.json")).unwrap();

    let names =
        ["real/tokens.json", "linked/tokens.json", "real/../real/tokens.json", "a.json", "b.json"];
    let mut revision = 1;
    for (i, one) in names.iter().enumerate() {
        let one = FileStore::new(folder.path(one));
        let _lock = one.lock(AT_ONCE).await.unwrap();
        for other in &names[i..] {
            let other = FileStore::new(folder.path(other));
            assert!(other.lock(AT_ONCE).await.unwrap_err().is_held());
            other.save(&record(revision + 1), Some(id(revision))).await.unwrap();
            revision += 1;
            assert_eq!(one.load().await.unwrap().unwrap().revision(), revision);
        }
    }
    // The links are still links, and no other file exists.
    assert_eq!(folder.names(), ["a.json", "b.json", "linked", "real"]);
    assert!(fs::symlink_metadata(folder.path("a.json")).unwrap().is_symlink());
}

#[tokio::test]
async fn a_relative_path_leads_to_the_same_lock() {
    let folder = Folder::new();
    let up = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let path = folder.path("tokens.json");
    let relative = [up, path.strip_prefix("/").unwrap().to_owned()].iter().collect::<PathBuf>();
    let store = FileStore::new(relative);
    store.save(&record(1), None).await.unwrap();
    let lock = store.lock(AT_ONCE).await.unwrap();
    let same = FileStore::new(path);
    assert!(same.load().await.unwrap().is_some());
    assert!(same.lock(AT_ONCE).await.unwrap_err().is_held());
    drop(lock);
}

async fn refused(store: &FileStore, what: &str) {
    for error in [
        store.load().await.map(drop).unwrap_err(),
        store.lock(AT_ONCE).await.map(drop).unwrap_err(),
        store.save(&record(1), None).await.unwrap_err(),
    ] {
        assert!(error.is_misconfigured() && error.to_string().contains(what), "{error}");
    }
}

#[tokio::test]
async fn impossible_paths_are_errors_with_a_remedy() {
    let folder = Folder::new();
    refused(&FileStore::new(""), "not the path of a file").await;
    refused(&FileStore::new("/"), "not the path of a file").await;
    refused(&FileStore::new(folder.path("..")), "not the path of a file").await;
    let long = "x".repeat(255);
    refused(&FileStore::new(folder.path(&"x".repeat(256))), "choose a shorter one").await;
    let error = FileStore::new(folder.path(&long)).lock(AT_ONCE).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("shorter"), "{error}");

    refused(&FileStore::new(folder.path("missing/tokens.json")), "create_dir").await;
    symlink("nowhere", folder.path("dangling")).unwrap();
    refused(&FileStore::new(folder.path("dangling")), "dangling").await;
    symlink("round", folder.path("round")).unwrap();
    refused(&FileStore::new(folder.path("round")), "symbolic link").await;
    fs::write(folder.path("file"), "").unwrap();
    refused(&FileStore::new(folder.path("file/tokens.json")), "not a directory").await;
    for suffix in ["lock", "save-lock", "new", "reserved"] {
        let name = format!("tokens.json.{suffix}");
        refused(&FileStore::new(folder.path(&name)), "choose one that does not end").await;
    }
    assert_eq!(folder.names(), ["dangling", "file", "round"]);
}

#[tokio::test]
async fn path_that_is_not_a_file_is_an_error() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    let store = FileStore::new(&path);
    let told = async |what: &str| {
        for error in [
            store.load().await.map(drop).unwrap_err(),
            store.save(&record(1), None).await.unwrap_err(),
        ] {
            assert!(error.is_misconfigured() && error.to_string().contains(what), "{error}");
        }
    };
    fs::create_dir(&path).unwrap();
    told("is a directory").await;
    fs::remove_dir(&path).unwrap();

    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    told("not a regular file").await;
    fs::remove_file(&path).unwrap();

    // Its path was resolved before. The path may now lead to a file with other locks.
    fs::write(folder.path("elsewhere"), "").unwrap();
    symlink("elsewhere", &path).unwrap();
    told("has become a symbolic link").await;
    assert_eq!(fs::read(folder.path("elsewhere")).unwrap(), b"");
}

#[tokio::test]
async fn obstacle_at_another_file_of_the_store_is_left_alone() {
    let folder = Folder::new();
    let store = FileStore::new(folder.path("tokens.json"));
    let victim = folder.path("victim");
    fs::write(&victim, "not yours").unwrap();
    for suffix in ["lock", "save-lock"] {
        let planted = folder.path(&format!("tokens.json.{suffix}"));
        symlink(&victim, &planted).unwrap();
        let error = match suffix {
            "lock" => store.lock(AT_ONCE).await.map(drop).unwrap_err(),
            _ => store.save(&record(1), None).await.unwrap_err(),
        };
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains(planted.to_str().unwrap()), "{error}");
        fs::remove_file(&planted).unwrap();
    }
    for suffix in ["new", "reserved"] {
        let planted = folder.path(&format!("tokens.json.{suffix}"));
        fs::create_dir(&planted).unwrap();
        let error = store.save(&record(1), None).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains(planted.to_str().unwrap()), "{error}");
        fs::remove_dir(&planted).unwrap();
    }
    assert_eq!(fs::read(&victim).unwrap(), b"not yours");
    store.save(&record(1), None).await.unwrap();
}

#[tokio::test]
async fn folders_are_private_and_created_only_on_request() {
    let folder = Folder::new();
    let path = folder.path("a/b/tokens.json");
    let store = FileStore::new(&path);
    assert!(store.load().await.unwrap_err().is_misconfigured());
    let store = store.create_dir();
    assert!(store.load().await.unwrap().is_none());
    store.save(&record(1), None).await.unwrap();
    for name in ["a", "a/b"] {
        assert_eq!(fs::metadata(folder.path(name)).unwrap().mode() & 0o777, 0o700);
    }
}

#[tokio::test]
async fn a_folder_that_has_gone_is_not_taken_for_one_without_a_record() {
    let folder = Folder::new();
    let inner = folder.path("inner");
    fs::create_dir(&inner).unwrap();
    let store = FileStore::new(inner.join("tokens.json"));
    store.save(&record(1), None).await.unwrap();
    fs::remove_dir_all(&inner).unwrap();
    for error in [
        store.load().await.map(drop).unwrap_err(),
        store.lock(AT_ONCE).await.map(drop).unwrap_err(),
        store.save(&record(2), None).await.unwrap_err(),
    ] {
        assert!(error.is_misconfigured() && error.to_string().contains("folder"), "{error}");
    }
}

#[tokio::test]
async fn a_record_that_others_could_read_is_not_readable_after_a_save() {
    let folder = Folder::new();
    let path = folder.path("tokens.json");
    fs::write(&path, &*record(1).to_json().unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    FileStore::new(&path).save(&record(2), Some(id(1))).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn description_of_a_store_names_its_file() {
    let store = FileStore::new("/var/lib/compass/tokens.json");
    assert_eq!(store.describe(), "the file /var/lib/compass/tokens.json");
    assert!(format!("{store:?}").contains("tokens.json"));
}

#[expect(dead_code, reason = "compiled to see that the futures can be sent")]
fn futures_can_be_spawned(store: FileStore) {
    drop(tokio::spawn(async move {
        let lock = store.lock(AT_ONCE).await?;
        store.save(&record(1), None).await?;
        lock.release().await;
        Ok::<_, StoreError>(())
    }));
}
