//! The whole table, written a second time in the RFC's own notation: letters are actions, `/` and a digit the next state.

use super::State;
use super::fsm::{Action, Input, Step, step};
use State::{Active, Initial, Learn, Listen, Speak, Standby};

const STATES: [State; 6] = [Initial, Learn, Listen, Speak, Standby, Active];

const INPUTS: [Input; 17] = [
    Input::Enabled,
    Input::Disabled,
    Input::ActiveExpired,
    Input::StandbyExpired,
    Input::HelloDue,
    Input::SpeakerWins,
    Input::ActiveWins,
    Input::ActiveLoses,
    Input::Resigned,
    Input::CoupWins,
    Input::StandbyWins,
    Input::StandbyLoses,
    Input::Grant,
    Input::Yield { resign: true },
    Input::Yield { resign: false },
    Input::Adopt,
    Input::Ineligible,
];

/// Event, row, row for a group that is not eligible where it differs.
type Row = (&'static str, [&'static str; 6], Option<[&'static str; 6]>);

/// A to H as in RFC 2281 5.7; P: propose, W: report a winner, L: report a loser. Columns: Initial, Learn, Listen, Speak,
/// Standby, Active.
#[rustfmt::skip]
const TABLE: [Row; 17] = [
    ("a", ["AB/3", "",     "",      "",     "",      ""],     None),
    ("b", ["CD",   "CD/1", "CD/1",  "CD/1", "CD/1",  "CDH/1"], None),
    ("c", ["",     "",     "ABF/4", "",     "P",     ""],     Some(["", "", "", "", "P", ""])),
    ("d", ["",     "",     "BF/4",  "DFP/5", "",     ""],     Some(["", "", "", "DFP/5", "", ""])),
    ("e", ["",     "",     "",      "F",    "F",     "F"],    None),
    ("f", ["",     "",     "",      "B/3",  "B/3",   ""],     None),
    ("g", ["A",    "AB/3", "A",     "A",    "A",     "W"],    None),
    ("h", ["A",    "AB/3", "AP",    "AP",   "AP",    "L"],    None),
    ("i", ["C",    "",     "ABF/4", "A",    "CP",    ""],     Some(["C", "", "C", "A", "CP", ""])),
    ("j", ["",     "",     "",      "",     "",      "W"],    None),
    ("k", ["",     "",     "B",     "B/3",  "B/3",   "B"],    None),
    ("l", ["",     "",     "BF/4",  "DFP/5", "",     "B"],    Some(["", "", "B", "DFP/5", "", "B"])),
    ("grant",  ["CDGF/6", "CDGF/6", "CDGF/6", "CDGF/6", "CDGF/6", ""], None),
    ("resign", ["", "", "", "", "", "ABHF/4"], Some(["", "", "", "", "", "ABH/3"])),
    ("yield",  ["", "", "", "", "", "ABF/4"],  Some(["", "", "", "", "", "AB/3"])),
    ("adopt",  ["CDF/6", "CDF/6", "CDF/6", "CDF/6", "CDF/6", ""], None),
    ("ineligible", ["", "", "", "B/3", "B/3", ""], None),
];

fn notation(from: State, step: Step) -> String {
    let mut text: String = step
        .actions
        .iter()
        .map(|action| match action {
            Action::StartActive => 'A',
            Action::StartStandby => 'B',
            Action::StopActive => 'C',
            Action::StopStandby => 'D',
            Action::SendHello => 'F',
            Action::SendCoup => 'G',
            Action::SendResign => 'H',
            Action::Propose => 'P',
            Action::ReportWinner => 'W',
            Action::ReportLoser => 'L',
        })
        .collect();
    if step.next != from {
        let digit = STATES.iter().position(|s| *s == step.next).map_or(0, |n| n + 1);
        text += &format!("/{digit}");
    }
    text
}

#[test]
fn every_state_answers_every_input_as_the_table_says() {
    for (input, (name, row, ineligible)) in INPUTS.into_iter().zip(TABLE) {
        for eligible in [true, false] {
            let row = if eligible { row } else { ineligible.unwrap_or(row) };
            for (state, want) in STATES.into_iter().zip(row) {
                assert_eq!(notation(state, step(state, input, eligible)), want, "{state} {name} eligible: {eligible}");
            }
        }
    }
}

#[test]
fn only_a_decision_of_the_node_leads_into_active_or_out_of_it_while_the_interface_is_up() {
    for input in INPUTS {
        for state in STATES {
            for eligible in [true, false] {
                let next = step(state, input, eligible).next;
                if state != Active && next == Active {
                    assert!(matches!(input, Input::Grant | Input::Adopt), "{state} {input:?}");
                }
                if state == Active && next != Active {
                    assert!(matches!(input, Input::Yield { .. } | Input::Disabled), "{input:?}");
                }
            }
        }
    }
}

#[test]
fn a_group_that_is_not_eligible_never_moves_from_listen_towards_standby() {
    for input in INPUTS {
        let next = step(Listen, input, false).next;
        assert!(!matches!(next, Speak | Standby), "{input:?} leads to {next}");
    }
}
