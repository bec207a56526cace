//! What Redis must do in one step, in Lua.
//!
//! Each script has one key, so that it runs on a cluster too, and is told our time: a value whose header
//! says that it is dead is an absent one. A header is eight bytes, the expiry in milliseconds since the
//! epoch, big-endian, all ones when there is none. What is no value of ours is answered with
//! `WRONGTYPE`, as Redis answers for other types, and stays as it is.
//!
//! Scripts are called by their hash and sent in full where the server does not know them yet.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use redis::Cmd;

/// A script that is called by its hash.
pub(super) type Script = LazyLock<(&'static str, redis::Script)>;

/// A script with what all of them use.
macro_rules! script {
    ($body:literal) => {
        LazyLock::new(|| {
            const SOURCE: &str = concat!(
                "
local key, now = KEYS[1], tonumber(ARGV[1])
local function foreign()
  return redis.error_reply('WRONGTYPE no value of this cache')
end
local function dead(header)
  local at, never = 0, true
  for i = 1, 8 do
    local byte = string.byte(header, i)
    never = never and byte == 255
    at = at * 256 + byte
  end
  return not never and at <= now
end
local function store(value, life)
  if life == '' then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'PX', life)
  end
end
",
                $body
            );
            (SOURCE, redis::Script::new(SOURCE))
        })
    };
}

/// Arguments: now, the condition's name, the bytes expected, the new value with its header (empty: dead
/// already), its life in milliseconds (empty: for ever). Answers 1 if the condition held.
pub(super) static SET_IF: Script = script!(
    "
local condition, held = ARGV[2], nil
if condition == 'equals' then
  held = redis.pcall('GET', key) or ''
else
  held = redis.pcall('GETRANGE', key, 0, 7)
end
if type(held) == 'table' then return held end
if #held > 0 and #held < 8 then return foreign() end
local live = #held > 0 and not dead(held)
local holds
if condition == 'absent' then
  holds = not live
elseif condition == 'present' then
  holds = live
else
  holds = live and string.sub(held, 9) == ARGV[3]
end
if not holds then return 0 end
if ARGV[4] == '' then
  redis.call('UNLINK', key)
else
  store(ARGV[4], ARGV[5])
end
return 1
"
);

/// Arguments: now, the bytes expected. Answers 1 if it held them.
pub(super) static DELETE_IF: Script = script!(
    "
local held = redis.pcall('GET', key)
if type(held) == 'table' then return held end
if not held then return 0 end
if #held < 8 then return foreign() end
if dead(held) or string.sub(held, 9) ~= ARGV[2] then return 0 end
redis.call('UNLINK', key)
return 1
"
);

/// Arguments: now. Removes the key whatever it holds; answers 1 if that was a live value.
pub(super) static DELETE: Script = script!(
    "
local header = redis.pcall('GETRANGE', key, 0, 7)
redis.call('UNLINK', key)
if type(header) == 'table' or #header < 8 or dead(header) then return 0 end
return 1
"
);

/// Arguments: now. Removes the key and answers what it held, with its header.
pub(super) static TAKE: Script = script!(
    "
local held = redis.pcall('GET', key)
if type(held) == 'table' then return held end
if not held then return false end
if #held < 8 then return foreign() end
redis.call('UNLINK', key)
if dead(held) then return false end
return held
"
);

/// Arguments: now, the new header (empty: dead already), the life in milliseconds (empty: for ever).
/// Answers 1 if there was a live value.
pub(super) static TOUCH: Script = script!(
    "
local header = redis.pcall('GETRANGE', key, 0, 7)
if type(header) == 'table' then return header end
if #header == 0 then return 0 end
if #header < 8 then return foreign() end
if dead(header) then return 0 end
if ARGV[2] == '' then
  redis.call('UNLINK', key)
  return 1
end
redis.call('SETRANGE', key, 0, ARGV[2])
if ARGV[3] == '' then
  redis.call('PERSIST', key)
else
  redis.call('PEXPIRE', key, ARGV[3])
end
return 1
"
);

/// What [`INCREMENT`] answers first.
pub(super) mod count {
    pub(in super::super) const NO_COUNTER: i64 = 0;
    pub(in super::super) const COUNTED: i64 = 1;
}

/// Arguments: now, two numbers to add, the largest count, the header of a new counter (empty: dead
/// already) and its life in milliseconds (empty: for ever). Answers a code and the count.
///
/// Numbers of Lua are exact up to the largest count and no further, hence two of them: each is within
/// that range, and so must be every sum.
pub(super) static INCREMENT: Script = script!(
    "
local held = redis.pcall('GET', key)
if type(held) == 'table' then return held end
local most, count, header = tonumber(ARGV[4]), 0, nil
if held then
  if #held < 8 then return foreign() end
  if not dead(held) then
    header = string.sub(held, 1, 8)
    local digits = string.sub(held, 9)
    if digits ~= '0' and not string.find(digits, '^%-?[1-9]%d*$') then return {0, ''} end
    count = tonumber(digits)
    if count < -most or count > most then return {2, ''} end
  end
end
for i = 2, 3 do
  count = count + tonumber(ARGV[i])
  if count < -most or count > most then return {2, ''} end
end
local digits = string.format('%.0f', count)
if header then
  redis.call('SET', key, header .. digits, 'KEEPTTL')
elseif ARGV[5] == '' then
  redis.call('UNLINK', key)
else
  store(ARGV[5] .. digits, ARGV[6])
end
return {1, digits}
"
);

/// Arguments: now, the name of a new generation, about how many messages to keep, the message. Adds it
/// with the generation and the number that follow from the message before it. Answers its place.
pub(super) static APPEND: Script = script!(
    "
local last = redis.pcall('XREVRANGE', key, '+', '-', 'COUNT', 1)
if last.err then return last end
local generation, number = ARGV[2], 0
if last[1] then
  local fields = last[1][2]
  if fields[1] == 'g' and fields[3] == 'n' and tonumber(fields[4]) then
    generation, number = fields[2], tonumber(fields[4])
  end
end
return redis.call('XADD', key, 'MAXLEN', '~', ARGV[3], '*',
  'g', generation, 'n', string.format('%.0f', number + 1), 'm', ARGV[4])
"
);

/// One command that concerns one key. Not to be shown: it holds the value.
pub(super) enum Call {
    /// As it is.
    Plain {
        /// The key, as the server sees it.
        key: Vec<u8>,
        /// The command, with its key.
        command: Cmd,
        /// About how many bytes it sends.
        size: usize,
    },
    /// A script.
    Script {
        /// Which.
        script: &'static Script,
        /// The key, as the server sees it.
        key: Vec<u8>,
        /// What comes after the key.
        arguments: Vec<Bytes>,
    },
}

impl Call {
    /// The command `name key arguments...`.
    pub(super) fn plain(name: &str, key: Vec<u8>, arguments: &[&[u8]]) -> Self {
        let mut command = redis::cmd(name);
        command.arg(&key);
        for argument in arguments {
            command.arg(*argument);
        }
        let size = key.len() + arguments.iter().map(|one| one.len()).sum::<usize>();
        Self::Plain { key, command, size }
    }

    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Plain { key, .. } | Self::Script { key, .. } => key,
        }
    }

    /// The command to send.
    pub(super) fn command(&self) -> Cow<'_, Cmd> {
        match self {
            Self::Plain { command, .. } => Cow::Borrowed(command),
            Self::Script { script, .. } => Cow::Owned(self.call("EVALSHA", script.1.get_hash())),
        }
    }

    /// The command to send to a server that does not know the script.
    pub(super) fn in_full(&self) -> Cow<'_, Cmd> {
        match self {
            Self::Plain { command, .. } => Cow::Borrowed(command),
            Self::Script { script, .. } => Cow::Owned(self.call("EVAL", script.0)),
        }
    }

    fn call(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        if let Self::Script { key, arguments, .. } = self {
            command.arg(script).arg(1).arg(key);
            for argument in arguments {
                command.arg(&argument[..]);
            }
        }
        command
    }

    /// About how many bytes it sends.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Plain { size, .. } => *size,
            Self::Script { key, arguments, .. } => {
                key.len() + arguments.iter().map(Bytes::len).sum::<usize>()
            }
        }
    }
}
