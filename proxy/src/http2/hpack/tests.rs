//! Blocks of the RFC's examples, of our own, and those that are none.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Block, Broken, Decoder, Encoder, Field, Item, Secrecy, table, table::Name};

const LIMIT: usize = 64 * 1024;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Name and value of a field.
fn text(field: &Field) -> (String, String) {
    let (name, value) = match field {
        Field::Method(method) => (":method", method.as_str()),
        Field::Scheme(scheme) => (":scheme", scheme.as_str()),
        Field::Authority(authority) => (":authority", authority.as_str()),
        Field::Path(path) => (":path", path.as_str()),
        Field::Status(status) => (":status", status.as_str()),
        Field::Header(name, value) => (name.as_str(), value.to_str().unwrap()),
        Field::Malformed(_) => ("malformed", ""),
    };
    (name.to_owned(), value.to_owned())
}

fn decoded(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<(String, String)>, Broken> {
    let mut block = Block::default();
    decoder.decode(bytes, LIMIT, &mut block)?;
    let Block { items, text: values, .. } = block;
    let values = Bytes::from(values);
    let fields = items.into_iter().map(|item| match item {
        Item::Whole(field) => field,
        Item::Text(name, range, secrecy) => Field::new(name, values.slice(range)).with(secrecy),
    });
    Ok(fields.map(|field| text(&field)).collect())
}

fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn requests_of_the_rfc_are_understood() {
    // C.3 and C.4: the same requests, as they are and in the Huffman code.
    let plain = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    let coded = [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::default();
        let mut next = 0;
        let mut request = || {
            next += 1;
            decoded(&mut decoder, &hex(blocks[next - 1])).unwrap()
        };
        let authority = (":authority", "www.example.com");
        let get = (":method", "GET");
        assert_eq!(request(), fields(&[get, (":scheme", "http"), (":path", "/"), authority]));
        let cache = ("cache-control", "no-cache");
        assert_eq!(
            request(),
            fields(&[get, (":scheme", "http"), (":path", "/"), authority, cache])
        );
        let (https, index) = ((":scheme", "https"), (":path", "/index.html"));
        let custom = ("custom-key", "custom-value");
        assert_eq!(request(), fields(&[get, https, index, authority, custom]));
    }
}

#[test]
fn responses_of_the_rfc_are_understood_where_the_table_is_small() {
    // C.6, in a table of 256 bytes.
    let mut decoder = Decoder::default();
    let first = "3fe101 488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff
        6e919d29ad171863c78f0b97c8e9ae82ae43d3";
    let location = ("location", "https://www.example.com");
    let (cache, date) = (("cache-control", "private"), ("date", "Mon, 21 Oct 2013 20:13:21 GMT"));
    let answer = decoded(&mut decoder, &hex(first)).unwrap();
    assert_eq!(answer, fields(&[(":status", "302"), cache, date, location]));
    // It puts the oldest out.
    let answer = decoded(&mut decoder, &hex("4883640effc1c0bf")).unwrap();
    assert_eq!(answer, fields(&[(":status", "307"), cache, date, location]));
    let third = "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2
        e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007";
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let expected = [
        (":status", "200"),
        cache,
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        location,
        ("content-encoding", "gzip"),
        ("set-cookie", cookie),
    ];
    assert_eq!(decoded(&mut decoder, &hex(third)).unwrap(), fields(&expected));
}

#[test]
fn what_is_no_block_is_refused() {
    for bytes in [
        "80",             // index zero
        "be",             // an entry that is not there
        "ffffffffff7f",   // an index of no table
        "0f",             // half an integer
        "0085",           // a name that is not there
        "0001",           // half a name
        "000161",         // no value
        "00016185ffffff", // a value that is too short
        "0081ff0161",     // the Huffman code's padding
        "3fe21f",         // a table that is larger than allowed
        "823f00",         // a change of the table behind a field
    ] {
        assert_eq!(decoded(&mut Decoder::default(), &hex(bytes)), Err(Broken), "{bytes}");
    }
    let largest = hex("3fe11f 82");
    assert_eq!(decoded(&mut Decoder::default(), &largest), Ok(fields(&[(":method", "GET")])));
}

#[test]
fn what_is_malformed_is_told_and_leaves_the_table_as_it_must_be() {
    let mut decoder = Decoder::default();
    // `X: a` goes into the table, and so does a good one; both are referred to, also by name.
    let block = hex("40 0158 0161 40 0178 0161 be bf 7f00 0162 0f30 0163");
    let read = decoded(&mut decoder, &block).unwrap();
    let malformed = ("malformed", "");
    let x = ("x", "a");
    assert_eq!(read, fields(&[malformed, x, x, malformed, malformed, ("x", "c")]));
    // What takes its name counts as much as it does for the peer, or the tables would differ: all of these fit.
    let mut decoder = Decoder::default();
    let long = [hex("40 0158 7fe10d").as_slice(), &[b'a'; 1888]].concat();
    assert_eq!(decoded(&mut decoder, &long).unwrap(), fields(&[malformed]));
    assert_eq!(decoded(&mut decoder, &hex("40 0178 0161")).unwrap(), fields(&[x]));
    assert_eq!(decoded(&mut decoder, &hex("7f00 0162 bf")).unwrap(), fields(&[malformed, x]));
}

#[test]
fn blanks_around_values_are_malformed() {
    for (value, fits) in [("a b", true), (" a", false), ("a\t", false), ("", true), (" ", false)] {
        let field = Field::new(Name::new(b"x"), Bytes::copy_from_slice(value.as_bytes()));
        assert_eq!(matches!(field, Field::Header(..)), fits, "{value:?}");
    }
}

#[test]
fn too_much_is_read_and_not_kept() {
    let mut decoder = Decoder::default();
    let mut bytes = hex("40 0178 0161");
    bytes.extend(std::iter::repeat_n(0xbe, 100));
    let mut block = Block::default();
    decoder.decode(&bytes, 340, &mut block).unwrap();
    assert!(block.too_large && block.items.len() == 10);
    assert_eq!(decoded(&mut decoder, &[0xbe]), Ok(fields(&[("x", "a")])));
    decoder.decode(&[0xbe; 10], 340, &mut block).unwrap();
    assert!(!block.too_large && block.items.len() == 10);
}

#[test]
fn a_string_may_be_as_long_as_its_list() {
    let size = 3 << 20;
    let mut bytes = hex("00 0178 7f");
    let mut rest = size - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes.resize(bytes.len() + size, b'~');
    let mut block = Block::default();
    Decoder::default().decode(&bytes, 4 << 20, &mut block).unwrap();
    assert!(!block.too_large && block.text.len() == size);
    Decoder::default().decode(&bytes, 1 << 20, &mut block).unwrap();
    assert!(block.too_large && block.text.is_empty());
}

#[test]
fn every_known_name_has_its_place() {
    for (index, (name, value)) in table::STATIC.iter().enumerate() {
        let first = table::STATIC.iter().position(|(other, _)| other == name).unwrap();
        assert_eq!(table::index_of(name).map(usize::from), Some(first + 1), "{name}");
        let parsed = decoded(&mut Decoder::default(), &[0x80 | (index as u8 + 1)]).unwrap();
        let empty_is_none = name.starts_with(':') && value.is_empty();
        let expected = if empty_is_none { ("malformed", "") } else { (*name, *value) };
        assert_eq!(parsed, fields(&[expected]));
    }
    assert_eq!(table::index_of("x-request-id"), None);
}

#[test]
fn what_repeats_becomes_short_and_everything_comes_back() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut random = 88_172_645_463_325_252_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut sizes = Vec::new();
    for round in 0..3_000 {
        if draw(50) == 0 {
            encoder.resize([0, 100, 300, 4096, 9000][draw(5) as usize]);
        }
        let id = format!("{round}-{}", draw(u64::MAX));
        let long = "x".repeat(draw(3_000) as usize);
        let some = format!("value {}", draw(80));
        let sent = [
            ("user-agent", "a client"),
            ("x-request-id", &id),
            ("x-some", &some),
            ("x-long", &long),
            ("cookie", "secret"),
            ("date", &some),
        ];
        let mut bytes = Vec::new();
        encoder.begin(&mut bytes);
        for (name, value) in sent {
            encoder.field(&mut bytes, name, value.as_bytes(), Secrecy::Open);
        }
        assert_eq!(decoded(&mut decoder, &bytes).unwrap(), fields(&sent));
        sizes.push(bytes.len());
    }
    let mut encoder = Encoder::default();
    let mut size = |value: &str| {
        let mut bytes = Vec::new();
        encoder.field(&mut bytes, "x-peer", value.as_bytes(), Secrecy::Open);
        bytes.len()
    };
    assert_eq!([size("same"), size("same"), size("same"), size("other")], [13, 13, 1, 14]);
}

#[test]
fn secrets_stay_out_of_tables_wherever_they_go() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    for _ in 0..4 {
        let mut bytes = Vec::new();
        encoder.field(&mut bytes, "x-token", b"secret", Secrecy::Secret);
        encoder.field(&mut bytes, "authorization", b"secret", Secrecy::Open);
        assert_eq!(bytes[0], 0x10);
        let mut block = Block::default();
        decoder.decode(&bytes, LIMIT, &mut block).unwrap();
        let secret = |item: &Item| matches!(item, Item::Text(_, _, Secrecy::Secret));
        assert!(block.items.len() == 2 && block.items.iter().all(secret));
    }
    let name = HeaderName::from_static("x-token");
    let field = Field::Header(name, HeaderValue::from_static("a")).with(Secrecy::Secret);
    assert!(matches!(field, Field::Header(_, value) if value.is_sensitive()));
}
