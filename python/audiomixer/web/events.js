// Server-sent events with a token in a header, which an EventSource cannot send, and which URLs should not have.

/** Calls `onData` for each event until the stream ends, or fails. */
export async function readEvents(url, token, onOpen, onData) {
  const response = await fetch(url, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (!response.ok) {
    const { message } = await response.json().catch(() => ({}));
    throw Object.assign(new Error(message ?? `The server answered ${response.status}`), { status: response.status });
  }
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const items = (rest + value).split('\n\n');
    rest = items.pop();
    for (const item of items) if (item.startsWith('data: ')) onData(item.replace(/^data: /gm, ''));
  }
}
