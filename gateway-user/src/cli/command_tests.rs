use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn ok(text: &str) -> Command {
    parse(&words(text)).unwrap()
}

#[test]
fn the_guides_commands_in_full_and_short() {
    for (text, want) in [
        ("show ssp client", Show::SspClients),
        ("show ssp peer", Show::SspPeers),
        ("sh ssp", Show::Ssp),
        ("sh cry isa ha st", Show::IsakmpHaSas(HaFilter::Standby)),
        ("sh cry isa ha", Show::IsakmpHa),
        ("show crypto isakmp policy 1", Show::IsakmpPolicy(Some(1))),
        ("sh cr ip sa addr", Show::IpsecSa(SaFilter::ByAddress)),
        ("SHOW Crypto IPSec SA Standby", Show::IpsecSa(SaFilter::Ha(HaFilter::Standby))),
        ("sh cr m t CMAP_1", Show::Map(MapFilter::Tag("CMAP_1".to_owned()))),
        ("show standby brief", Show::StandbyBrief),
    ] {
        assert_eq!(ok(text), Command::Show(want), "{text}");
    }
    let peer = IpAddr::from([192, 168, 3, 1]);
    for (text, want) in [
        ("clear cryp isa ha standby resync", Action::ClearIsakmpHaStandby { resync: true }),
        ("clear crypto sa ha standby peer 192.168.3.1", Action::ClearSaHaStandby { peer: Some(peer), resync: false }),
        ("clear crypto sa", Action::ClearSa(ClearSa::All)),
        ("clear crypto sa spi 192.168.3.1 esp 0xD8C8635F", Action::ClearSa(ClearSa::Spi { destination: peer, spi: Spi(0xD8C8_635F) })),
        ("rekey ipsec 3637011295", Action::RekeyIpsec(Spi(0xD8C8_635F))),
        ("rekey ipsec peer 192.168.3.1", Action::RekeyPeer(peer)),
        ("debug ssp fsm", Action::Debug { on: true, topic: Some(DebugTopic { area: "ssp", part: Some("fsm") }) }),
        ("no debug crypto isakmp ha", Action::Debug { on: false, topic: Some(DebugTopic { area: "crypto isakmp ha", part: None }) }),
        ("un all", Action::Debug { on: false, topic: None }),
        ("initiate CMAP_1 1", Action::Initiate { map: "CMAP_1".to_owned(), seq: 1 }),
    ] {
        assert_eq!(ok(text), Command::Act(want), "{text}");
    }
}

#[test]
fn words_come_back_in_full() {
    let (_, full) = parse_words(&words("sh cry ips sa pe 10.0.0.1")).unwrap();
    assert_eq!(full.join(" "), "show crypto ipsec sa peer 10.0.0.1");
}

#[test]
fn wrong_words_name_the_right_one() {
    for (text, want) in [
        ("", "a command is missing: show, clear"),
        ("shwo ssp", "unknown word `shwo`: did you mean `show`?"),
        ("show crypto ipesc sa", "unknown word `ipesc` after `show crypto`: did you mean `ipsec`?"),
        ("show crypto i sa", "`i` after `show crypto` is ambiguous: isakmp, ikev2, ipsec"),
        ("show ssp p", "`p` after `show ssp` is ambiguous: packet, peers"),
        ("show crypto", "`show crypto` is incomplete; next: isakmp, "),
        ("show ssp peers now", "`show ssp peers` ends here: unexpected word `now`"),
        ("show crypto ipsec sa peer here", "unknown word `here` after `show crypto ipsec sa peer`: valid: ADDRESS"),
        ("rekey ipsec 255", "unknown word `255` after `rekey ipsec`: valid: SPI, peer"),
        ("no show ssp", "`no` goes with `debug` only"),
    ] {
        let got = parse(&words(text)).unwrap_err();
        assert!(got.starts_with(want), "{text}: {got}");
    }
}

#[test]
fn every_row_can_be_reached_and_is_unambiguous() {
    for row in rows() {
        let argv: Vec<String> = row
            .words
            .iter()
            .map(|w| match *w {
                "ADDRESS" => "10.0.0.1".to_owned(),
                "NUMBER" => "7".to_owned(),
                "SPI" => "0x1000".to_owned(),
                "NAME" => "Zed".to_owned(),
                w => w.to_owned(),
            })
            .collect();
        let (_, full) = parse_words(&argv).unwrap();
        assert_eq!(full, argv);
    }
}

#[test]
fn long_input_is_refused_unread() {
    assert!(parse(&vec!["show".to_owned(); WORDS_MAX + 1]).is_err());
    assert!(parse(&["s".repeat(WORD_BYTES_MAX + 1)]).is_err());
}
