"""The pages in Chromium: one that speaks, one that listens, and what they hear."""

from playwright.async_api import Browser, Page, expect

from tests.browser import TONE
from tests.conftest import Service
from tests.rooms.client import Client, Microphone

SPECTRUM = """
async () => {
    const context = new AudioContext({ sampleRate: 48000 });
    const audio = document.querySelector('#audio');
    const analyser = context.createAnalyser();
    analyser.fftSize = 8192;
    const source = audio.srcObject
        ? context.createMediaStreamSource(audio.srcObject)
        : context.createMediaElementSource(audio);
    source.connect(analyser).connect(context.destination);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const bins = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(bins);
    const level = (frequency) => bins[Math.round((frequency * 8192) / 48000)];
    return { tone: level(1000), other: level(500), floor: Math.max(level(750), level(1700), level(2300)) };
}
"""


async def test_one_speaks_another_listens_a_third_does_not_hear_itself(
    service: Service, browser: Browser, page: Page
) -> None:
    stream = await service.streams.start("lounge")
    async with Client(f"{service.url}/whip/lounge?identity=third", Microphone(500)) as third:
        speaker = await browser.new_page()
        later: list[int] = []
        for tab in (speaker, page):
            tab.on("response", lambda answer: answer.request.method == "PATCH" and later.append(answer.status))
        await speaker.goto(f"{service.url}/rooms/lounge")
        await speaker.get_by_label("Your name").fill("chromium")
        await speaker.get_by_role("button", name="Join with microphone").press("Enter")
        await expect(speaker.get_by_role("status")).to_have_text("You are in the room.")

        await page.goto(f"{service.url}/listen/{stream.sid}")
        await page.get_by_role("button", name="Play").click()
        await expect(page.get_by_role("status")).to_have_text("Playing live.", timeout=15_000)
        line = page.locator("li.speaker", has_text="chromium")
        spectrum = await page.evaluate(SPECTRUM)
        # Chromium takes a steady tone for noise, and turns it down.
        assert spectrum["tone"] > spectrum["floor"] + 25
        assert spectrum["other"] > spectrum["floor"] + 25
        assert int(await line.get_attribute("data-volume") or 0) > 20

        own = await speaker.evaluate(SPECTRUM)
        assert own["other"] > -50
        assert own["tone"] < spectrum["tone"] - 25, "the speaker does not hear itself"
        assert third.heard

        assert set(later) == {204}, "candidates follow the offers"
        await speaker.keyboard.press("m")
        await expect(line).to_contain_text("muted", timeout=3000)
        await expect(speaker.get_by_role("button", name="Unmute")).to_have_attribute("aria-pressed", "true")
        await speaker.keyboard.press("m")
        await expect(line).to_contain_text("dBFS", timeout=3000)
        await speaker.get_by_role("button", name="Leave").click()
        await expect(line).to_have_count(0, timeout=3000)
        await expect(speaker.get_by_role("status")).to_have_text("You have left the room.")


KEEP = """
const Connection = RTCPeerConnection;
window.RTCPeerConnection = class extends Connection {
    constructor(...given) { super(...given); window.connection = this; }
};
"""
LOSE = """
() => {
    window.before = connection.remoteDescription.sdp.match(/a=ice-ufrag:.*/)[0];
    Object.defineProperty(connection, 'iceConnectionState', { get: () => 'disconnected' });
    connection.dispatchEvent(new Event('iceconnectionstatechange'));
}
"""
"""The browser finds that nothing comes any more, as it does some seconds after a network is gone."""
RENEWED = """
async () => {
    const ufrag = connection.remoteDescription.sdp.match(/a=ice-ufrag:.*/)[0];
    if (ufrag === before || connection.connectionState !== 'connected') return false;
    const stats = [...(await connection.getStats()).values()];
    const pair = stats.find(({ type, nominated }) => type === 'candidate-pair' && nominated);
    const inbound = stats.find(({ type }) => type === 'inbound-rtp');
    const more = inbound.packetsReceived - (window.had ?? inbound.packetsReceived);
    window.had ??= inbound.packetsReceived;
    return pair && more > 50;
}
"""


async def test_a_listener_whose_network_is_gone_looks_for_another_way(service: Service, page: Page) -> None:
    """The page restarts ICE; it is the same session, with the same listener, all along."""
    stream = await service.streams.start("lounge")
    later: list[int] = []
    page.on("response", lambda answer: answer.request.method == "PATCH" and later.append(answer.status))
    await page.add_init_script(KEEP)
    async with Client(f"{service.url}/whip/lounge?identity=alice", Microphone(TONE), hears=False):
        await page.goto(f"{service.url}/listen/{stream.sid}")
        await page.get_by_role("button", name="Play").click()
        await expect(page.get_by_role("status")).to_have_text("Playing live.", timeout=15_000)
        await page.evaluate(LOSE)
        await page.wait_for_function(RENEWED, timeout=15_000)
        assert 200 in later, "an ICE restart is answered"
        assert stream.whep.listeners == 1
        spectrum = await page.evaluate(SPECTRUM)
        assert spectrum["tone"] > spectrum["floor"] + 25


async def test_hls_where_webrtc_does_not_get_through(service: Service, page: Page) -> None:
    stream = await service.streams.start("lounge")
    async with Client(f"{service.url}/whip/lounge?identity=alice", Microphone(TONE), hears=False):
        await page.wait_for_timeout(3000)
        await page.goto(f"{service.url}/listen/{stream.sid}?transport=hls")
        await page.get_by_role("button", name="Play").click()
        await expect(page.get_by_role("status")).to_have_text("Playing, a few seconds behind.", timeout=15_000)
        await expect(page.locator("li.speaker", has_text="alice")).to_contain_text("-17 dBFS", timeout=15_000)
        # Chromium lets no page look into the sound of its native HLS: that it plays has to do.
        await page.wait_for_function("document.querySelector('#audio').currentTime > 2", timeout=30_000)


async def test_the_front_page_leads_to_rooms_and_streams(service: Service, page: Page) -> None:
    stream = await service.streams.start("lounge")
    await page.goto(service.url)
    await expect(page.get_by_role("link", name="Listen: Mix of lounge")).to_have_attribute(
        "href", f"listen/{stream.sid}"
    )
    await page.get_by_label("Enter a room").fill("kitchen")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="kitchen")).to_be_visible()


async def test_a_phone_shows_everything_without_sideways_scrolling(service: Service, browser: Browser) -> None:
    stream = await service.streams.start("lounge")
    phone = await browser.new_page(viewport={"width": 360, "height": 640})
    for path in ("/", "/rooms/a-room-with-a-rather-long-name-that-has-to-be-wrapped", f"/listen/{stream.sid}"):
        await phone.goto(service.url + path)
        assert await phone.evaluate("document.documentElement.scrollWidth") <= 360
