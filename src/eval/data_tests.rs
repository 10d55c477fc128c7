//! Lists and sound files, good and bad.

use super::*;

const HEADER: &str = "utt_id,role,source,language,speaker,claimed_speaker,text,n_clips,clips,gaps_ms,lead_ms,tail_ms\n";

fn recipes(rows: &str) -> Result<Vec<Recipe>, EvalError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list.csv");
    std::fs::write(&file, format!("{HEADER}{rows}")).unwrap();
    read_recipes(&file)
}

fn message(rows: &str) -> String {
    recipes(rows).unwrap_err().to_string()
}

#[test]
fn csv_keeps_commas_quotes_and_line_ends_inside_quotes() {
    let t = Table::parse(Path::new("x.csv"), "a,b\r\n\"1,\"\"2\"\"\n3\",4\r\n\r\n5,").unwrap();
    let rows: Vec<_> = t.rows().map(|r| (r.line, r.get("a").unwrap().to_owned(), r.get("b").unwrap().to_owned())).collect();
    assert_eq!(rows, [(2, "1,\"2\"\n3".to_owned(), "4".to_owned()), (5, "5".to_owned(), String::new())]);
    let open = Table::parse(Path::new("x.csv"), "a\n\n\"b").unwrap_err().to_string();
    assert_eq!(open, "x.csv: line 3: a quote is opened and never closed");
    let ragged = Table::parse(Path::new("x.csv"), "a,b\n1\n").unwrap_err().to_string();
    assert_eq!(ragged, "x.csv: line 2 has 1 cells, the header 2");
}

#[test]
fn a_good_row_is_read_and_can_be_cut_short() {
    let all = recipes("u1,genuine,s,en,ann,ann,123,3,dev/a.flac;dev/b.flac;dev/c.flac,100;200,300,400\n").unwrap();
    let one = &all[0];
    assert_eq!(one.digits, [1, 2, 3]);
    let short = one.truncated(2);
    assert_eq!(short.digits, [1, 2]);
    let Material::Spliced { clips, gaps_ms, lead_ms, tail_ms } = short.material else { panic!("spliced") };
    assert_eq!((clips.len(), gaps_ms.as_slice(), lead_ms, tail_ms), (2, [100].as_slice(), 300, 400));
}

#[test]
fn a_bad_row_is_told_by_file_line_and_column() {
    let good = "u1,genuine,s,en,ann,ann,12,2,a;b,100,300,400\n";
    for (bad, told) in [
        ("u2,genuine,s,en,ann,ann,12,2,a;b,,300,400\n", "line 3, column \"gaps_ms\": 0 gaps don't fit 2 clips"),
        ("u2,genuine,s,en,ann,ann,1x,2,a;b,1,300,400\n", "line 3, column \"text\": should be digits only"),
        ("u2,genuine,s,en,ann,ann,123,2,a;b,1,300,400\n", "line 3, column \"text\": 3 digits don't fit 2 clips"),
        ("u2,genuine,s,en,ann,ann,12,2,a;b,-1,300,400\n", "line 3, column \"gaps_ms\": \"-1\" is no whole number"),
        ("u2,genuine,s,en,ann,ann,12,2,a;b,1,300,99999999\n", "line 3, column \"tail_ms\": 99999999 ms is longer than"),
        ("u1,genuine,s,en,ann,ann,12,2,a;b,1,300,400\n", "line 3, column \"utt_id\": \"u1\" stands twice"),
        ("u2,genuine,s,en,,ann,12,2,a;b,1,300,400\n", "line 3, column \"speaker\": is empty"),
    ] {
        let text = message(&format!("{good}{bad}"));
        assert!(text.contains("list.csv, ") && text.contains(told), "{text}");
    }
    assert!(message("").contains("lists nothing"));
}

#[test]
fn recordings_with_their_digits_are_utterances_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("strings.csv");
    std::fs::write(&file, "path,speaker,text,n_digits,duration_s,note\ndev/lines/F_1/line2.flac,F_1,93265804,8,6.4,\"a, b\"\n")
        .unwrap();
    let all = read_recipes(&file).unwrap();
    assert_eq!(all[0].id, "dev__lines__F_1__line2");
    assert_eq!((all[0].source.as_str(), all[0].digits.len()), ("lines", 8));
}

#[test]
fn a_root_or_split_that_is_not_there_is_told_with_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("dev/trials")).unwrap();
    std::fs::create_dir_all(dir.path().join("test/trials")).unwrap();
    assert!(Split::open(dir.path(), "dev").is_ok());
    let text = Split::open(dir.path(), "nope").unwrap_err().to_string();
    assert!(text.ends_with("has no split \"nope\" (a folder with trials/ in it); it has: dev, test"), "{text}");
    assert!(Split::open(dir.path(), "../dev").is_err());
    assert!(Split::open(&dir.path().join("gone"), "dev").unwrap_err().to_string().contains("--data"));
    let split = Split::open(dir.path(), "dev").unwrap();
    assert!(split.find_list("none.csv").unwrap_err().to_string().contains("looked for"));
    assert!(split.clip("dev/x.flac").is_ok());
    assert!(split.clip("../x.flac").is_err());
    assert!(split.clip("/etc/x.flac").is_err());
}

#[test]
fn a_wav_is_read_as_fractions_and_broken_sound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.wav");
    let spec = hound::WavSpec { channels: 2, sample_rate: 8000, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut w = hound::WavWriter::create(&file, spec).unwrap();
    for s in [16384i16, 0, -32768, -32768] {
        w.write_sample(s).unwrap();
    }
    w.finalize().unwrap();
    assert_eq!(read_sound(&file).unwrap(), (vec![0.25, -1.0], 8000));
    let broken = dir.path().join("broken.flac");
    std::fs::write(&broken, b"fLaC and no more").unwrap();
    assert!(read_sound(&broken).unwrap_err().to_string().contains("broken.flac can't be used as sound"));
    assert!(read_sound(&dir.path().join("gone.flac")).is_err());
}
