//! The record of a killmail: MessagePack with short field names, compressed. The structs that it is encoded from
//! are private to this file.
//!
//! Law 4 (old bytes decode forever): once a release has written a version, every later release reads it. To
//! change a struct, add a new version with new structs. Fields are named, and an optional one is left out when
//! empty, so an optional field can be added without a new version.
//!
//! Must not know: where records are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::entry::is_implausible;
use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Position, Victim};
use crate::domain::zkb::Zkb;
use crate::store::format::dictionary::{CURRENT, Dictionaries};
use crate::store::format::frame::Header;

/// The current version. Raise the schema number (`engine/meta`) together with it.
pub const VERSION: u8 = 1;

/// An encoded and compressed killmail.
#[derive(Debug, Clone)]
pub struct Packed {
    pub payload: Vec<u8>,
    /// Length of the payload before compression.
    pub raw_bytes: u32,
    /// Number of the dictionary that compressed it.
    pub dictionary: u8,
}

/// Encodes and decodes records with the dictionaries of a store.
pub struct Codec {
    dictionaries: Dictionaries,
}

impl Codec {
    pub const fn new(dictionaries: Dictionaries) -> Self {
        Self { dictionaries }
    }

    /// Encodes killmails with one compressor.
    pub fn pack<'a>(&self, killmails: impl Iterator<Item = &'a Killmail>) -> Result<Vec<Packed>, String> {
        let mut compressor = self.dictionaries.compressor().map_err(|e| e.to_string())?;
        killmails
            .map(|killmail| {
                let record = encode(killmail)?;
                let payload = compressor.compress(&record).map_err(|e| e.to_string())?;
                let raw_bytes = u32::try_from(record.len()).map_err(|e| e.to_string())?;
                Ok(Packed { payload, raw_bytes, dictionary: CURRENT })
            })
            .collect()
    }

    /// Decodes the payload of a frame with this header.
    pub fn unpack(&self, header: &Header, payload: &[u8]) -> Result<Killmail, String> {
        if header.version != VERSION {
            return Err(format!("record version {} is unknown", header.version));
        }
        let bytes = self
            .dictionaries
            .decompress(header.dictionary, payload, header.raw_bytes as usize)
            .map_err(|e| e.to_string())?;
        let record: RecordV1 = rmp_serde::from_slice(&bytes).map_err(|e| e.to_string())?;
        let killmail = record.into_killmail()?;
        Ok(Killmail { time_implausible: is_implausible(killmail.time, header.received_at_ms), ..killmail })
    }
}

/// The record before compression, on which dictionaries are trained.
pub fn encode(killmail: &Killmail) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(&RecordV1::from(killmail)).map_err(|e| e.to_string())
}

#[derive(Serialize, Deserialize)]
struct RecordV1 {
    id: u32,
    t: i64,
    sys: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moon: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    war: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    vic: VictimV1,
    att: Vec<AttackerV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zkb: Option<ZkbV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
    /// Provenance: part -> the lower-ranked source it came from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    low: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct VictimV1 {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    o: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    f: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<u32>,
    d: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pos: Option<(f64, f64, f64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    it: Option<Vec<ItemV1>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct AttackerV1 {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    o: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    f: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    w: Option<u32>,
    d: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fb: bool,
    ss: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ItemV1 {
    i: u64,
    l: i64,
    g: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    z: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    it: Option<Vec<ItemV1>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ZkbV1 {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loc: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fit: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dest: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pts: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    npc: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    solo: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    awox: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    att: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    href: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    u: Option<String>,
}

/// Unknown or unreadable fields as JSON text. They are rare, and JSON keeps them exactly.
fn encode_extra(extra: &Extra) -> Option<String> {
    (!extra.is_empty()).then(|| serde_json::to_string(extra).unwrap_or_default())
}

/// Earlier releases stored unknown ids as 0.
fn nonzero<T: Default + PartialEq>(id: Option<T>) -> Option<T> {
    id.filter(|id| *id != T::default())
}

fn decode_extra(text: Option<String>) -> Result<Extra, String> {
    text.map_or_else(|| Ok(Extra::new()), |t| serde_json::from_str(&t).map_err(|e| e.to_string()))
}

impl From<&Killmail> for RecordV1 {
    fn from(k: &Killmail) -> Self {
        Self {
            id: k.killmail_id,
            t: k.time,
            sys: k.solar_system_id,
            moon: k.moon_id,
            war: k.war_id,
            hash: k.hash.clone(),
            vic: VictimV1::from(&k.victim),
            att: k.attackers.iter().map(AttackerV1::from).collect(),
            zkb: k.zkb.as_ref().map(ZkbV1::from),
            x: encode_extra(&k.extra),
            u: k.unreadable.members().and_then(encode_extra),
            low: k.provenance.iter().map(|(part, source)| (part.to_owned(), source.to_owned())).collect(),
        }
    }
}

impl RecordV1 {
    fn into_killmail(self) -> Result<Killmail, String> {
        Ok(Killmail {
            killmail_id: self.id,
            time: self.t,
            solar_system_id: self.sys,
            moon_id: nonzero(self.moon),
            war_id: nonzero(self.war),
            hash: self.hash,
            victim: self.vic.into_victim()?,
            attackers: self.att.into_iter().map(AttackerV1::into_attacker).collect::<Result<_, _>>()?,
            zkb: self.zkb.map(ZkbV1::into_zkb).transpose()?,
            // Not stored: it follows from when the killmail arrived.
            time_implausible: false,
            extra: decode_extra(self.x)?,
            unreadable: decode_extra(self.u)?.into(),
            provenance: self.low.into_iter().collect(),
        })
    }
}

impl From<&Victim> for VictimV1 {
    fn from(v: &Victim) -> Self {
        Self {
            c: v.character_id,
            o: v.corporation_id,
            a: v.alliance_id,
            f: v.faction_id,
            s: v.ship_type_id,
            d: v.damage_taken,
            pos: v.position.map(|p| (p.x, p.y, p.z)),
            it: v.items.as_deref().map(encode_items),
            x: encode_extra(&v.extra),
            u: v.unreadable.members().and_then(encode_extra),
        }
    }
}

impl VictimV1 {
    fn into_victim(self) -> Result<Victim, String> {
        Ok(Victim {
            character_id: nonzero(self.c),
            corporation_id: nonzero(self.o),
            alliance_id: nonzero(self.a),
            faction_id: nonzero(self.f),
            ship_type_id: nonzero(self.s),
            damage_taken: self.d,
            position: self.pos.map(|(x, y, z)| Position { x, y, z }),
            items: self.it.map(decode_items).transpose()?,
            extra: decode_extra(self.x)?,
            unreadable: decode_extra(self.u)?.into(),
        })
    }
}

impl From<&Attacker> for AttackerV1 {
    fn from(a: &Attacker) -> Self {
        Self {
            c: a.character_id,
            o: a.corporation_id,
            a: a.alliance_id,
            f: a.faction_id,
            s: a.ship_type_id,
            w: a.weapon_type_id,
            d: a.damage_done,
            fb: a.final_blow,
            ss: a.security_status,
            x: encode_extra(&a.extra),
            u: a.unreadable.members().and_then(encode_extra),
        }
    }
}

impl AttackerV1 {
    fn into_attacker(self) -> Result<Attacker, String> {
        Ok(Attacker {
            character_id: nonzero(self.c),
            corporation_id: nonzero(self.o),
            alliance_id: nonzero(self.a),
            faction_id: nonzero(self.f),
            ship_type_id: nonzero(self.s),
            weapon_type_id: nonzero(self.w),
            damage_done: self.d,
            final_blow: self.fb,
            security_status: self.ss,
            extra: decode_extra(self.x)?,
            unreadable: decode_extra(self.u)?.into(),
        })
    }
}

fn encode_items(items: &[Item]) -> Vec<ItemV1> {
    let encode_item = |i: &Item| ItemV1 {
        i: i.item_type_id,
        l: i.flag,
        g: i.singleton,
        q: i.quantity_dropped,
        z: i.quantity_destroyed,
        it: i.items.as_deref().map(encode_items),
        x: encode_extra(&i.extra),
        u: i.unreadable.members().and_then(encode_extra),
    };
    items.iter().map(encode_item).collect()
}

fn decode_items(items: Vec<ItemV1>) -> Result<Vec<Item>, String> {
    let decode_item = |i: ItemV1| {
        Ok(Item {
            item_type_id: i.i,
            flag: i.l,
            singleton: i.g,
            quantity_dropped: i.q,
            quantity_destroyed: i.z,
            items: i.it.map(decode_items).transpose()?,
            extra: decode_extra(i.x)?,
            unreadable: decode_extra(i.u)?.into(),
        })
    };
    items.into_iter().map(decode_item).collect()
}

impl From<&Zkb> for ZkbV1 {
    fn from(z: &Zkb) -> Self {
        Self {
            loc: z.location_id,
            hash: z.hash.clone(),
            fit: z.fitted_value,
            drop: z.dropped_value,
            dest: z.destroyed_value,
            total: z.total_value,
            pts: z.points,
            npc: z.npc,
            solo: z.solo,
            awox: z.awox,
            labels: z.labels.clone(),
            att: z.attacker_count,
            href: z.href.clone(),
            x: encode_extra(&z.extra),
            u: z.unreadable.members().and_then(encode_extra),
        }
    }
}

impl ZkbV1 {
    fn into_zkb(self) -> Result<Zkb, String> {
        Ok(Zkb {
            location_id: self.loc,
            hash: self.hash,
            fitted_value: self.fit,
            dropped_value: self.drop,
            destroyed_value: self.dest,
            total_value: self.total,
            points: self.pts,
            npc: self.npc,
            solo: self.solo,
            awox: self.awox,
            labels: self.labels,
            attacker_count: self.att,
            href: self.href,
            extra: decode_extra(self.x)?,
            unreadable: decode_extra(self.u)?.into(),
        })
    }
}
