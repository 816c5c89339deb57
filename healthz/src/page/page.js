// Fetches the page again and swaps in what changed. Without this script, the page renews itself.
const state = document.getElementById('state');
const main = document.getElementById('main');
const pause = document.getElementById('pause');

const show = (name, text, title) => {
  if (state.textContent !== text) {
    state.className = name;
    state.textContent = text;
  }
  document.title = title;
};

// A swap would take the focus or the selection from the reader.
const isRead = () => main.contains(document.activeElement) || !getSelection().isCollapsed;

const renew = async () => {
  if (pause.getAttribute('aria-pressed') === 'true' || document.hidden) return;
  try {
    const answer = await fetch('/', { cache: 'no-store', signal: AbortSignal.timeout(1900) });
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const next = page.getElementById('state');
    show(next.className, next.textContent, page.title);
    if (!isRead()) main.replaceChildren(...page.getElementById('main').childNodes);
  } catch {
    show('unhealthy', 'No answer from healthz', 'No answer · cluster DNS');
  }
};

pause.hidden = false;
pause.addEventListener('click', () => {
  const isPaused = pause.getAttribute('aria-pressed') === 'false';
  pause.setAttribute('aria-pressed', isPaused);
  pause.textContent = isPaused ? 'Go on' : 'Pause';
});
setInterval(renew, 2000);
