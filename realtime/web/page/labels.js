// The labels in their order, and their colours: those of the program's own overlay.
export const LABELS = ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"];
export const NOT_SURE = "not sure";
const COLOURS = {
  neutral: "#c8ced5", happy: "#f6e042", sad: "#4698f0", angry: "#f05c30",
  fearful: "#d680be", disgusted: "#20b284", surprised: "#8cd6fa", [NOT_SURE]: "#969da5",
};

export function colourOf(label) {
  return COLOURS[label] ?? COLOURS[NOT_SURE];
}

export function percent(share) {
  return `${Math.round(100 * share)} %`;
}
