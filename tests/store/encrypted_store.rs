//! The records of an `EncryptedStore` are secret, cannot be edited unnoticed, and survive a key rotation.
#![allow(clippy::disallowed_types, reason = "locks shared with the code under test")]

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tower_refresh::store::{
    EncryptedStore, EncryptionKey, MemoryStore, StoreError, StoredTokens, TokenStore, WriteId,
};
use tower_refresh::testing::store_laws;

// ===== the laws =====

#[test]
fn encrypted_store_keeps_the_laws() {
    let stores = Mutex::new(HashMap::<String, MemoryStore>::new());
    let store = |name: &str| {
        let store = stores.lock().unwrap().entry(name.to_owned()).or_default().clone();
        EncryptedStore::new(store, key("b", 2)).also_decrypt_with(key("a", 1))
    };
    let paused = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let real = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    for runtime in [paused, real] {
        runtime.block_on(store_laws(async |name| store(name)));
    }
}

// ===== reading the storage =====

#[tokio::test]
async fn neither_tokens_nor_keys_are_stored_or_shown() {
    let store = MemoryStore::new();
    let sealed = EncryptedStore::new(store.clone(), key("a", 7)).also_decrypt_with(key("b", 8));
    sealed.save(&record(1), None).await.unwrap();

    let stored = json_of(&store.load().await.unwrap().unwrap());
    let loaded = sealed.load().await.unwrap().unwrap();
    let shown =
        format!("{sealed:?} {loaded:?} {:?} {:?}", key("a", 7), store.load().await.unwrap());
    for shown in [stored.to_string(), shown] {
        for secret in [
            "sesame-access",
            "sesame-refresh",
            "sesame-id",
            "sesame-scope",
            "sesame-later",
            "00112233445566778899aabbccddeeff",
            "ffeeddccbbaa99887766554433221100",
            "7, 7",
            "07070707",
            "BwcHBwcH",
        ] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
            // In each alignment that base64 can have.
            for start in 0..3 {
                let encoded = STANDARD_NO_PAD.encode(secret.as_bytes().split_at(start).1);
                let inner = &encoded[..encoded.len() - 1];
                // A few letters occur in any random text.
                assert!(inner.len() < 7 || !shown.contains(inner), "{secret} in {shown}");
            }
        }
    }
    assert_eq!(
        stored["body"]["sealed"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["ciphertext", "has_open_intent", "key_id", "nonce"]
    );
}

#[tokio::test]
async fn loaded_record_is_the_saved_one_without_foreign_fields() {
    let store = MemoryStore::new();
    let sealed = EncryptedStore::new(store.clone(), key("a", 1));
    sealed.save(&record(1), None).await.unwrap();
    assert_eq!(json_of(&sealed.load().await.unwrap().unwrap()), json_of(&record(1)));
    assert_eq!(sealed.describe(), store.describe());

    let mut stored = json_of(&store.load().await.unwrap().unwrap());
    stored["_id"] = json!("of a document");
    stored["body"]["sealed"]["_id"] = json!("of a document");
    let opened =
        EncryptedStore::new(holding(&stored).await, key("a", 1)).load().await.unwrap().unwrap();
    assert_eq!(json_of(&opened), json_of(&record(1)));
}

#[tokio::test]
async fn each_save_has_a_nonce_of_its_own() {
    let mut nonces = HashSet::new();
    for _ in 0..100 {
        let store = MemoryStore::new();
        EncryptedStore::new(store.clone(), key("a", 1)).save(&record(1), None).await.unwrap();
        let stored = json_of(&store.load().await.unwrap().unwrap());
        let nonce = stored["body"]["sealed"]["nonce"].as_str().unwrap().to_owned();
        assert_eq!(STANDARD.decode(&nonce).unwrap().len(), 24);
        assert!(nonces.insert(nonce));
    }
}

// ===== writing to the storage =====

#[tokio::test]
async fn edited_part_in_the_clear_is_unreadable() {
    let stored = sealed_json(&record(1), key("a", 1)).await;
    let parts = parts(&stored, "");
    assert_eq!(
        parts,
        [
            "/binding/client_id",
            "/binding/name",
            "/binding/token_endpoint",
            "/body/sealed/ciphertext",
            "/body/sealed/has_open_intent",
            "/body/sealed/key_id",
            "/body/sealed/nonce",
            "/epoch",
            "/revision",
            "/version",
            "/write_id",
        ]
    );
    for part in parts {
        for edit in edits(stored.pointer(&part).unwrap()) {
            let mut edited = stored.clone();
            *edited.pointer_mut(&part).unwrap() = edit;
            // Neither another key helps nor the same key under another id.
            let sealed = EncryptedStore::new(holding(&edited).await, key("a", 1))
                .also_decrypt_with(key("b", 1));
            let error = sealed.load().await.expect_err(&part);
            assert!(error.is_unreadable(), "{part}: {error}");
            if part != "/version" {
                let words = ["cannot be decrypted", "which this store does not have"];
                assert!(words.iter().any(|word| error.to_string().contains(word)), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn text_moved_between_two_parts_is_unreadable() {
    let stored = sealed_json(&record(1), key("a", 1)).await;
    let mut edited = stored.clone();
    let binding = &mut edited["binding"];
    let joined = |binding: &Value| {
        ["token_endpoint", "client_id", "name"].map(|part| binding[part].as_str().unwrap()).concat()
    };
    let before = joined(binding);
    *binding = json!({ "token_endpoint": "https://as.example.co", "client_id": "mcompas", "name": "sone" });
    assert_eq!(joined(binding), before);
    unreadable(&edited, "was changed").await;
}

#[tokio::test]
async fn flipped_bit_of_the_ciphertext_is_unreadable() {
    let stored = sealed_json(&record(1), key("a", 1)).await;
    for part in ["nonce", "ciphertext"] {
        let bytes = STANDARD.decode(stored["body"]["sealed"][part].as_str().unwrap()).unwrap();
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            let mut edited = stored.clone();
            edited["body"]["sealed"][part] = json!(STANDARD.encode(flipped));
            unreadable(&edited, "was changed").await;
        }
        for cut in [0, 1, 15, 16, 17, 23, bytes.len() - 1] {
            let mut edited = stored.clone();
            edited["body"]["sealed"][part] = json!(STANDARD.encode(&bytes[..cut]));
            unreadable(&edited, "was changed").await;
        }
        let mut longer = stored.clone();
        longer["body"]["sealed"][part] = json!(STANDARD.encode([&bytes[..], &[0]].concat()));
        unreadable(&longer, "was changed").await;
    }
}

/// S9
#[tokio::test]
async fn record_of_one_name_is_unreadable_under_another() {
    let mut other = json_of(&record(2));
    other["binding"]["name"] = json!("two");
    let other = StoredTokens::from_json(other.to_string().as_bytes()).unwrap();
    let [one, two] =
        [sealed_json(&record(1), key("a", 1)).await, sealed_json(&other, key("a", 1)).await];
    for (into, of) in [(&one, &two), (&two, &one)] {
        let mut swapped = into.clone();
        swapped["body"] = of["body"].clone();
        unreadable(&swapped, "was changed").await;
        // The content of the one under the name of the other.
        let mut renamed = of.clone();
        renamed["binding"] = into["binding"].clone();
        unreadable(&renamed, "was changed").await;
    }
    // If the whole record is moved, its binding shows where it belongs.
    let moved =
        EncryptedStore::new(holding(&two).await, key("a", 1)).load().await.unwrap().unwrap();
    assert_eq!(moved.binding().name, "two");
}

#[tokio::test]
async fn record_that_cannot_be_decrypted_is_left_unchanged() {
    let plain = json_of(&record(1));
    let sealed = sealed_json(&record(1), key("a", 1)).await;
    let mut edited = sealed.clone();
    edited["revision"] = json!(7);
    for (stored, key) in [
        (&plain, key("a", 1)),
        (&sealed, key("a", 9)),
        (&sealed, key("z", 1)),
        (&edited, key("a", 1)),
    ] {
        let store = holding(stored).await;
        let over = EncryptedStore::new(store.clone(), key);
        let error = over.load().await.unwrap_err();
        assert!(error.is_unreadable());
        // The message names the store: a program may have many.
        assert!(error.get_ref().to_string().starts_with(&store.describe()), "{error}");
        for replaces in [None, Some(record(5).write_id())] {
            assert!(over.save(&record(2), replaces).await.unwrap_err().is_conflict());
        }
        assert_eq!(json_of(&store.load().await.unwrap().unwrap()), *stored);
    }
}

#[tokio::test]
async fn encrypted_record_is_not_encrypted_again() {
    let sealed =
        EncryptedStore::new(EncryptedStore::new(MemoryStore::new(), key("a", 1)), key("b", 2));
    let error = sealed.save(&record(1), None).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("once"), "{error}");
}

// ===== places =====

/// A store whose records have a place.
#[derive(Clone)]
struct At(&'static str, MemoryStore);

impl TokenStore for At {
    type Lock = <MemoryStore as TokenStore>::Lock;

    async fn lock(&self, wait: Duration) -> Result<Self::Lock, StoreError> {
        self.1.lock(wait).await
    }

    async fn load(&self) -> Result<Option<StoredTokens>, StoreError> {
        self.1.load().await
    }

    async fn save(
        &self,
        record: &StoredTokens,
        replaces: Option<WriteId>,
    ) -> Result<(), StoreError> {
        self.1.save(record, replaces).await
    }

    fn place(&self) -> String {
        self.0.to_owned()
    }
}

/// Returns the JSON that is stored for a record at this place.
async fn sealed_at(place: &'static str, record: &StoredTokens) -> Value {
    let store = At(place, MemoryStore::new());
    EncryptedStore::new(store.clone(), key("a", 1)).save(record, None).await.unwrap();
    json_of(&store.load().await.unwrap().unwrap())
}

async fn at(place: &'static str, stored: &Value) -> EncryptedStore<At> {
    EncryptedStore::new(At(place, holding(stored).await), key("a", 1))
}

/// S9
#[tokio::test]
async fn swapped_records_of_two_users_are_refused_with_both_places() {
    let mut nameless = json_of(&record(1));
    nameless["binding"] = json!({});
    let nameless = StoredTokens::from_json(nameless.to_string().as_bytes()).unwrap();
    let [alice, bob] = [sealed_at("alice", &nameless).await, sealed_at("bob", &nameless).await];
    assert!(at("alice", &alice).await.load().await.unwrap().is_some());
    for (place, stored, from) in [("alice", &bob, "bob"), ("bob", &alice, "alice")] {
        let error = at(place, stored).await.load().await.unwrap_err();
        assert!(error.is_unreadable());
        let message = error.to_string();
        let words = format!("encrypted for the place {from:?}, and is at the place {place:?}");
        assert!(message.contains(&words) && message.contains("accept_moved_from"), "{message}");
        assert!(!format!("{message} {error:?}").contains("sesame"));
    }

    // The place in a record cannot be edited or removed.
    for edit in [json!("alice"), json!(""), Value::Null] {
        let mut edited = bob.clone();
        edited["body"]["sealed"]["place"] = edit;
        let error = at("alice", &edited).await.load().await.unwrap_err();
        assert!(error.to_string().contains("was changed"), "{error}");
    }
}

/// S9
#[tokio::test]
async fn record_without_a_place_is_read_and_bound_by_the_next_save() {
    let old = sealed_json(&record(1), key("a", 1)).await;
    assert!(old["body"]["sealed"].get("place").is_none());
    let store = At("alice", holding(&old).await);
    let sealed = EncryptedStore::new(store.clone(), key("a", 1));
    let strict = sealed.clone().require_place();
    let error = strict.load().await.unwrap_err();
    assert!(error.is_unreadable() && error.to_string().contains("without its place"), "{error}");

    assert_eq!(json_of(&sealed.load().await.unwrap().unwrap()), json_of(&record(1)));
    sealed.save(&record(2), Some(record(1).write_id())).await.unwrap();
    let bound = json_of(&store.load().await.unwrap().unwrap());
    assert_eq!(bound["body"]["sealed"]["place"], "alice");
    for sealed in [sealed, strict] {
        assert_eq!(json_of(&sealed.load().await.unwrap().unwrap()), json_of(&record(2)));
    }
    assert!(at("bob", &bound).await.load().await.unwrap_err().is_unreadable());
}

/// S9
#[tokio::test]
async fn record_that_could_not_be_read_again_is_not_saved() {
    let store = MemoryStore::new();
    let sealed = EncryptedStore::new(store.clone(), key("a", 1)).require_place();
    let error = sealed.save(&record(1), None).await.unwrap_err();
    assert!(error.is_misconfigured() && error.to_string().contains("require_place"), "{error}");
    assert!(store.load().await.unwrap().is_none());
}

/// S9
#[tokio::test]
async fn renamed_record_is_accepted_if_allowed_and_bound_by_a_save() {
    let stored = sealed_at("alice", &record(1)).await;
    let moved = at("carol", &stored).await;
    let migrating = moved.clone().accept_moved_from("alice");
    assert!(moved.load().await.is_err());
    assert!(migrating.load().await.unwrap().is_some());
    migrating.save(&record(2), Some(record(1).write_id())).await.unwrap();
    assert!(moved.load().await.unwrap().is_some());
}

/// S9
#[cfg(all(unix, feature = "file-store"))]
#[tokio::test]
async fn swapped_files_are_refused_and_a_moved_folder_is_not() {
    use std::fs;

    use tower_refresh::store::FileStore;

    use crate::folder::Folder;

    let folder = Folder::new();
    let [users, moved] = ["users", "moved"].map(|name| folder.path(name));
    for user in ["", "alice", "bob"] {
        fs::create_dir_all(users.join(user)).unwrap();
    }
    let sealed = |store: FileStore| EncryptedStore::new(store, key("a", 1));
    let by_name = |name: &str| sealed(FileStore::new(users.join(name)));
    let by_place = |user: &str| sealed(FileStore::new(users.join(user).join("t")).with_place(user));
    let swap = |one: &str, other: &str| {
        fs::rename(users.join(one), users.join("x")).unwrap();
        fs::rename(users.join(other), users.join(one)).unwrap();
        fs::rename(users.join("x"), users.join(other)).unwrap();
    };
    for (stores, [one, other]) in [
        ([by_name("alice.json"), by_name("bob.json")], ["alice.json", "bob.json"]),
        ([by_place("alice"), by_place("bob")], ["alice/t", "bob/t"]),
    ] {
        for store in &stores {
            store.save(&record(1), None).await.unwrap();
        }
        swap(one, other);
        for store in &stores {
            let error = store.load().await.unwrap_err();
            assert!(error.is_unreadable() && error.to_string().contains("the place"), "{error}");
        }
        swap(one, other);
        for store in &stores {
            assert!(store.load().await.unwrap().is_some());
        }
    }

    // A link to a file has the place of the file.
    std::os::unix::fs::symlink("alice.json", users.join("link")).unwrap();
    assert!(by_name("link").load().await.unwrap().is_some());
    assert_eq!(by_name("link").place(), "alice.json");
    fs::rename(&users, &moved).unwrap();
    assert!(sealed(FileStore::new(moved.join("alice.json"))).load().await.unwrap().is_some());
}

/// Records that version 0.1.0 of the crate has written, without a place and with one.
#[tokio::test]
async fn records_of_earlier_versions_are_readable() {
    for (place, stored) in [
        ("", include_str!("encrypted_store/without_place.json")),
        ("tokens.json", include_str!("encrypted_store/with_place.json")),
    ] {
        let store = At(place, holding(&serde_json::from_str(stored).unwrap()).await);
        let loaded = EncryptedStore::new(store, key("2026-03", 7)).load().await.unwrap().unwrap();
        assert_eq!(json_of(&loaded), json_of(&record(1)));
    }
}

// ===== keys =====

#[tokio::test]
async fn rotating_a_key_leaves_every_record_readable() {
    let [old, new] = [key("2026-02", 1), key("2026-03", 2)];
    let store = MemoryStore::new();
    let sealed_with =
        async || json_of(&store.load().await.unwrap().unwrap())["body"]["sealed"]["key_id"].take();
    let before = EncryptedStore::new(store.clone(), old.clone());
    let first = before.clone().also_decrypt_with(new.clone());
    let second = EncryptedStore::new(store.clone(), new.clone()).also_decrypt_with(old);
    let last = EncryptedStore::new(store.clone(), new);

    // While a step is rolled out, some processes are one step behind.
    let mut stored: Option<WriteId> = None;
    for (place, [ahead, behind]) in
        [[&first, &before], [&second, &first], [&last, &second]].into_iter().enumerate()
    {
        for (step, saves) in [behind, ahead, behind, ahead].into_iter().enumerate() {
            let record = record(u8::try_from(1 + 4 * place + step).unwrap());
            saves.save(&record, stored).await.unwrap();
            stored = Some(record.write_id());
            for loads in [ahead, behind] {
                let loaded = loads.load().await.unwrap().unwrap();
                assert_eq!(json_of(&loaded), json_of(&record));
            }
        }
    }
    assert_eq!(sealed_with().await, "2026-03");

    // A grant that was not refreshed during the rotation.
    let store = MemoryStore::new();
    EncryptedStore::new(store.clone(), key("2026-02", 1)).save(&record(1), None).await.unwrap();
    let error = EncryptedStore::new(store, key("2026-03", 2)).load().await.unwrap_err();
    assert!(error.is_unreadable());
    assert!(error.to_string().contains("\"2026-02\", which this store does not have"), "{error}");
}

#[tokio::test]
async fn all_keys_of_one_id_are_tried_and_a_wrong_one_is_named() {
    let stored = sealed_json(&record(1), key("a", 1)).await;
    let store = holding(&stored).await;
    let wrong = EncryptedStore::new(store.clone(), key("a", 2));
    let error = wrong.load().await.unwrap_err();
    assert!(error.is_unreadable());
    assert!(error.to_string().contains("this key \"a\" is not the one"), "{error}");

    let both = wrong.also_decrypt_with(key("a", 1));
    assert_eq!(json_of(&both.load().await.unwrap().unwrap()), json_of(&record(1)));
}

#[tokio::test]
async fn foreign_key_id_is_shown_shortened_and_escaped() {
    let mut stored = sealed_json(&record(1), key("a", 1)).await;
    stored["body"]["sealed"]["key_id"] = json!(format!("\n\u{1b}[31m{}", "x".repeat(10_000)));
    let error = EncryptedStore::new(holding(&stored).await, key("a", 1)).load().await.unwrap_err();
    let shown = error.to_string();
    assert!(shown.len() < 300 && !shown.contains(['\n', '\u{1b}']), "{shown}");
}

#[tokio::test]
async fn keys_are_read_from_both_base64_alphabets() {
    // With the characters in which the alphabets differ.
    let bytes: [u8; 32] = std::array::from_fn(|place| 0xfb_u8.wrapping_add(place as u8 % 5));
    let stored = sealed_json(&record(1), EncryptionKey::new("a", bytes)).await;
    let standard = STANDARD.encode(bytes);
    assert!(standard.contains(['+', '/']));
    for base64 in [
        standard.clone(),
        format!(" {standard}\r\n"),
        STANDARD_NO_PAD.encode(bytes),
        URL_SAFE.encode(bytes),
        URL_SAFE.encode(bytes).trim_end_matches('=').to_owned(),
    ] {
        let key = EncryptionKey::from_base64("a", &base64).unwrap();
        assert_eq!(key.id(), "a");
        assert!(EncryptedStore::new(holding(&stored).await, key).load().await.is_ok(), "{base64}");
    }
}

#[test]
fn invalid_key_is_an_error_that_does_not_show_it() {
    for (secret, words) in [
        ("", "has 0 bytes instead of 32"),
        ("c2VzYW1l", "has 6 bytes"),
        (&"0f".repeat(32), "has 48 bytes"),
        ("sesame opens", "is not base64"),
        ("c2VzYW1l?", "is not base64"),
    ] {
        let error = EncryptionKey::from_base64("2026-03", secret).unwrap_err();
        assert!(error.is_misconfigured());
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(words) && shown.contains("openssl rand -base64 32"), "{shown}");
        assert!(shown.contains("2026-03"), "{shown}");
        assert!(secret.is_empty() || !shown.contains(secret), "{shown}");
        assert!(!shown.contains('?') && !shown.contains("sesame"), "{shown}");
    }
}

// ===== migration =====

#[tokio::test]
async fn unencrypted_record_is_read_if_allowed_and_then_encrypted() {
    let store = MemoryStore::new();
    store.save(&record(1), None).await.unwrap();
    let sealed = EncryptedStore::new(store.clone(), key("a", 1));
    let error = sealed.load().await.unwrap_err();
    assert!(error.is_unreadable() && error.to_string().contains("accept_unencrypted"), "{error}");

    let migrating = sealed.clone().accept_unencrypted();
    let plain = migrating.load().await.unwrap().unwrap();
    assert_eq!(json_of(&plain), json_of(&record(1)));
    migrating.save(&record(2), Some(plain.write_id())).await.unwrap();
    for sealed in [migrating, sealed] {
        assert_eq!(json_of(&sealed.load().await.unwrap().unwrap()), json_of(&record(2)));
    }
    let stored = json_of(&store.load().await.unwrap().unwrap());
    assert!(stored["body"].get("plain").is_none(), "{stored}");
}

// ===== helpers =====

fn key(id: &str, byte: u8) -> EncryptionKey {
    EncryptionKey::new(id, [byte; 32])
}

/// A record with every field set.
fn record(number: u8) -> StoredTokens {
    let json = json!({
        "version": 1,
        "write_id": format!("{number:032x}"),
        "epoch": 3,
        "revision": 1000 + u64::from(number),
        "binding": {
            "token_endpoint": "https://as.example.com",
            "client_id": "compass",
            "name": "one",
        },
        "body": { "plain": {
            "fingerprint_key": "00112233445566778899aabbccddeeff",
            "tokens": {
                "access_token": "sesame-access",
                "received_at_ms": 1,
                "expires_at_ms": 300_001,
                "refresh_token": "sesame-refresh",
                "scope": "sesame-scope",
                "id_token": "sesame-id",
            },
            "intent": {
                "token": "ffeeddccbbaa99887766554433221100",
                "by": format!("{number:032x}"),
                "attempt": 1,
                "first_sent_ms": 2,
                "last_sent_ms": 2,
            },
            "from_a_later_version": "sesame-later",
        } },
        "from_a_later_version": "sesame-later",
    });
    StoredTokens::from_json(json.to_string().as_bytes()).unwrap()
}

fn json_of(record: &StoredTokens) -> Value {
    serde_json::from_slice(&record.to_json().unwrap()).unwrap()
}

/// Returns the JSON that the inner store has after this save.
async fn sealed_json(record: &StoredTokens, key: EncryptionKey) -> Value {
    let store = MemoryStore::new();
    EncryptedStore::new(store.clone(), key).save(record, None).await.unwrap();
    json_of(&store.load().await.unwrap().unwrap())
}

async fn holding(stored: &Value) -> MemoryStore {
    let store = MemoryStore::new();
    let record = StoredTokens::from_json(stored.to_string().as_bytes()).unwrap();
    store.save(&record, None).await.unwrap();
    store
}

async fn unreadable(stored: &Value, words: &str) {
    let sealed = EncryptedStore::new(holding(stored).await, key("a", 1));
    let error: StoreError = sealed.load().await.unwrap_err();
    assert!(error.is_unreadable() && error.to_string().contains(words), "{error}");
    assert!(!format!("{error} {error:?}").contains("sesame"));
}

/// Returns the paths of all leaves.
fn parts(json: &Value, path: &str) -> Vec<String> {
    let Value::Object(fields) = json else { return vec![path.to_owned()] };
    fields.iter().flat_map(|(name, part)| parts(part, &format!("{path}/{name}"))).collect()
}

/// Returns similar values of the same type.
fn edits(part: &Value) -> Vec<Value> {
    match part {
        Value::Bool(value) => vec![json!(!value)],
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            // A later version is refused before it is decrypted.
            let later = if number == 1 { 0 } else { number + 1 };
            vec![json!(later), json!(number - 1)]
        }
        // The write id. A nonce, which is random, may also begin with a zero.
        Value::String(text) if text.starts_with("00000000") => {
            vec![json!(text.replace('1', "2")), json!("0".repeat(32))]
        }
        Value::String(text) => {
            let case = if text.to_uppercase() == *text {
                text.to_lowercase()
            } else {
                text.to_uppercase()
            };
            vec![
                json!(""),
                json!(case),
                json!(format!("{text}x")),
                json!("b"),
                json!(format!("{text}\0")),
            ]
        }
        other => panic!("{other}"),
    }
}
